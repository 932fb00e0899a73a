// Package fuzz holds the searches that need more than one package: a broker killed again and
// again under load, directories mangled before they are opened. What one package can search
// alone stands as a fuzz target beside its code. Every search prints the seed that it can be
// repeated from.
package fuzz
