// Package fuzz holds the searches that need more than one package: a broker killed again and
// again under load, with its transactions checked from the outside, hostile clients beside honest
// ones, directories mangled before they are opened, a disk that is full. What one package can search
// alone stands as a fuzz target beside its code. Every search prints the seed that it can be
// repeated from.
package fuzz
