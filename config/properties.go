package config

import "io"

// ParseProperties reads Java's Properties syntax, in the order written. Errors name the line.
func ParseProperties(r io.Reader) ([]Pair, error) { panic("BUG: not yet") }
