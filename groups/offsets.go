package groups

// offsetStore holds the committed offsets of a partition's groups.
type offsetStore struct{}
