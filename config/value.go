package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Value is one setting's value, parsed by its type.
type Value struct {
	Type Type
	Null bool
	Bool bool
	Int  int64   // Int, Short and Long
	Num  float64 // Double
	Str  string  // String, Class and Password, trimmed
	List []string
}

// Error is a setting that is refused; its text is Kafka's, word for word.
type Error struct {
	Msg string
	// BadRequest: Kafka answers INVALID_REQUEST and not INVALID_CONFIG.
	BadRequest bool
}

func (e *Error) Error() string { return e.Msg }

func invalid(name, value, why string) error {
	return &Error{Msg: "Invalid value " + value + " for configuration " + name + ": " + why}
}

// String is the value in the form that Kafka describes it: "true", "0.5", "a,b"; empty for null.
func (v *Value) String() string {
	if v.Null {
		return ""
	}
	switch v.Type {
	case Boolean:
		return strconv.FormatBool(v.Bool)
	case Int, Short, Long:
		return strconv.FormatInt(v.Int, 10)
	case Double:
		return javaDouble(v.Num)
	case List:
		return strings.Join(v.List, ",")
	}
	return v.Str
}

// shown is the value as Java's string concatenation prints it inside an error.
func (v *Value) shown() string {
	if v.Null {
		return "null"
	}
	if v.Type == List {
		return "[" + strings.Join(v.List, ", ") + "]"
	}
	if v.Type == Password {
		return "[hidden]"
	}
	return v.String()
}

// Parse reads a value that was set for the key and checks it as Kafka does. A null value is one
// that the caller was given as null.
func (k *Key) Parse(value *string) (Value, error) {
	v, err := parseType(k.Name, k.Type, value)
	if err != nil {
		return Value{}, err
	}
	return k.checked(v)
}

// DefaultValue is the parsed default. A required key has none: its error is Kafka's.
func (k *Key) DefaultValue() (Value, error) {
	if k.Required {
		return Value{}, &Error{Msg: "Missing required configuration \"" + k.Name + "\" which has no default value."}
	}
	v, err := parseType(k.Name, k.Type, k.Default)
	if err != nil {
		panic("BUG: default of " + k.Name + ": " + err.Error())
	}
	return k.checked(v)
}

func (k *Key) checked(v Value) (Value, error) {
	if k.check == nil {
		return v, nil
	}
	if _, ok := k.check.(validList); ok && !v.Null {
		v.List = distinct(v.List)
	}
	if err := k.check.validate(k.Name, &v); err != nil {
		return Value{}, err
	}
	return v, nil
}

func distinct(list []string) []string {
	out := list[:0:0]
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func parseType(name string, t Type, value *string) (Value, error) {
	v := Value{Type: t}
	if value == nil {
		v.Null = true
		return v, nil
	}
	raw := *value
	s := javaTrim(raw)
	ok := true
	switch t {
	case Boolean:
		switch {
		case strings.EqualFold(s, "true"):
			v.Bool = true
		case strings.EqualFold(s, "false"):
		default:
			return v, invalid(name, raw, "Expected value to be either true or false")
		}
	case Int:
		v.Int, ok = javaInt(s, 32)
	case Short:
		v.Int, ok = javaInt(s, 16)
	case Long:
		v.Int, ok = javaInt(s, 64)
	case Double:
		v.Num, ok = javaParseDouble(s)
	case List:
		v.List = splitList(s)
	default:
		v.Str = s
	}
	if !ok {
		return v, invalid(name, raw, "Not a number of type "+t.String())
	}
	return v, nil
}

// javaTrim drops what Java's String.trim drops: every character up to a space at both ends.
func javaTrim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
}

func javaInt(s string, bits int) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, bits)
	return n, err == nil
}

var doubleForm = regexp.MustCompile(`^[+-]?(NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[fFdD]?)$`)

// javaParseDouble reads what Double.parseDouble reads, hexadecimal forms apart.
func javaParseDouble(s string) (float64, bool) {
	if !doubleForm.MatchString(s) {
		return 0, false
	}
	if !strings.HasSuffix(s, "Infinity") {
		s = strings.TrimRight(s, "fFdD")
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range is an infinity or zero, as in Java
	return f, true
}

// javaDouble prints as Double.toString does: at least one digit after the point, and scientific
// form outside [0.001, 10⁷).
func javaDouble(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		if math.Signbit(f) {
			return "-0.0"
		}
		return "0.0"
	}
	if a := math.Abs(f); a >= 1e-3 && a < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	mant, exp, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
	if !strings.Contains(mant, ".") {
		mant += ".0"
	}
	n, err := strconv.Atoi(exp)
	if err != nil {
		panic("BUG: exponent of " + strconv.FormatFloat(f, 'E', -1, 64))
	}
	return mant + "E" + strconv.Itoa(n)
}

// splitList splits at commas with the white space around them; an empty string is an empty list.
func splitList(s string) []string {
	if s == "" {
		return nil
	}
	parts := strings.Split(s, ",")
	for i, p := range parts {
		if i > 0 {
			p = strings.TrimLeft(p, javaSpace)
		}
		if i < len(parts)-1 {
			p = strings.TrimRight(p, javaSpace)
		}
		parts[i] = p
	}
	return parts
}

// javaSpace is what \s matches in Java's regular expressions.
const javaSpace = " \t\n\v\f\r"
