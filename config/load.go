package config

// Load parses settings, of which later ones win, into the configuration of a server.
func Load(pairs []Pair) (*Server, error) { panic("BUG: not yet") }

// Standalone returns the settings of a server that was given no file: one combined node with its data in
// dir, listening on addr ("host:port").
func Standalone(dir, addr string) []Pair { panic("BUG: not yet") }
