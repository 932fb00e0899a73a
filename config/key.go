// Package config is the catalogue of Kafka's settings under Kafka's own names: their types,
// defaults, validators and scopes, and the static configuration of one server parsed from them.
//
// It owns the wording of every error that a client sees about a setting's value, which is
// Kafka's, and the syntax of server.properties, which is that of Java's Properties. It refuses
// to know what a setting does: it is pure data, does no I/O beyond a reader it is given, keeps
// no state, and decides nothing at run time.
package config

import (
	"iter"
	"strconv"
)

// Type is the type of a setting's value; the numbers are those of DescribeConfigs v3+ (KIP-569).
type Type int8

// The types of Kafka's ConfigDef.
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// String is Kafka's name for the type.
func (t Type) String() string {
	switch t {
	case Boolean:
		return "BOOLEAN"
	case String:
		return "STRING"
	case Int:
		return "INT"
	case Short:
		return "SHORT"
	case Long:
		return "LONG"
	case Double:
		return "DOUBLE"
	case List:
		return "LIST"
	case Class:
		return "CLASS"
	case Password:
		return "PASSWORD"
	}
	return "UNKNOWN(" + strconv.Itoa(int(t)) + ")"
}

// Scope says whose setting a key is.
type Scope uint8

// The four kinds of resources that have settings.
const (
	BrokerScope Scope = iota
	TopicScope
	GroupScope
	ClientMetricsScope
)

// ResourceType is how DescribeConfigs and the metadata log number the kinds of resources.
type ResourceType int8

// Resource types that have settings (KIP-133, KIP-714, KIP-848).
const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4
	ResourceBrokerLogger  ResourceType = 8
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

// Key is one setting of the catalogue. Keys are immutable and shared.
type Key struct {
	Name      string
	Type      Type
	Default   *string // nil: the default is null, or Required
	Required  bool    // no default at all
	Doc       string  // one sentence of our own for a setting that this build acts on; empty for others
	ReadOnly  bool    // a broker setting that only a restart changes
	Sensitive bool
	Internal  bool // accepted but never described
	// PerBroker: a dynamic broker setting that has no cluster-wide default.
	PerBroker bool
	// PerListener: a dynamic broker setting that is set only with a listener's prefix.
	PerListener bool
	Scope       Scope
	Synonym     string // topic setting: the broker setting it falls back to; empty if none
	check       validator
}

// ActedOn says whether this build does something with the setting; the others are read, checked
// and described, and change nothing.
func (k *Key) ActedOn() bool { return k.Doc != "" }

// FixedAs says whether only a restart changes what the broker setting is under a name, its own or that with a listener's
// prefix. What is fixed for the broker is fixed for a listener too where Kafka would act on it there.
func (k *Key) FixedAs(name string) bool {
	return k.ReadOnly && (k.Name == name || ofListeners(k))
}

// Table is the catalogue of one scope.
type Table struct {
	keys    []*Key // by name
	defined []*Key // in the order that Kafka checks them
	byName  map[string]*Key
}

// Lookup finds a key by its exact name; nil if the scope has none.
func (t *Table) Lookup(name string) *Key { return t.byName[name] }

// All yields every key in the order of names.
func (t *Table) All() iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		for _, k := range t.keys {
			if !yield(k) {
				return
			}
		}
	}
}

// Describable yields every key that DescribeConfigs shows without being set, in the order of names.
func (t *Table) Describable() iter.Seq[*Key] {
	return func(yield func(*Key) bool) {
		for _, k := range t.keys {
			if !k.Internal && !yield(k) {
				return
			}
		}
	}
}

// Len is the number of keys.
func (t *Table) Len() int { return len(t.keys) }
