package fuzz

func recoveryTargets() []*Target { return nil }
