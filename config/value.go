package config

// validator checks a parsed value; its String is how Kafka prints it.
type validator interface {
	validate(name string, v *Value) error
}

// Value is one setting's value, parsed by its type.
type Value struct {
	Null bool
	Bool bool
	Int  int64
	Num  float64
	Str  string
	List []string
}
