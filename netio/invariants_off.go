//go:build !invariants

package netio

const invariants = false

func poison([]byte) {}
