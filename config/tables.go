package config

import (
	"slices"
	"strings"
	"sync"
)

// Broker is the catalogue of broker settings.
func Broker() *Table { return brokerTable() }

// Topic is the catalogue of topic settings.
func Topic() *Table { return topicTable() }

// Group is the catalogue of group settings.
func Group() *Table { return groupTable() }

// ClientMetrics is the catalogue of client metrics subscriptions' settings.
func ClientMetrics() *Table { return clientMetricsTable() }

var (
	brokerTable = sync.OnceValue(func() *Table {
		return newTable(BrokerScope, brokerCatalogue[:], brokerDocs)
	})
	topicTable = sync.OnceValue(func() *Table {
		return newTable(TopicScope, topicCatalogue[:], topicDocs)
	})
	groupTable = sync.OnceValue(func() *Table {
		return newTable(GroupScope, groupCatalogue[:], nil)
	})
	clientMetricsTable = sync.OnceValue(func() *Table {
		return newTable(ClientMetricsScope, clientMetricsCatalogue[:], nil)
	})
)

// row is one line of a catalogue.
type row struct {
	name  string
	typ   Type
	def   preset
	flags rowFlags
	check validator
}

type rowFlags uint8

const (
	readOnly    rowFlags = 1 << iota // only a restart changes it
	perBroker                        // dynamic, but not as a cluster-wide default
	perListener                      // dynamic only with a listener's prefix
	internal                         // accepted, never described
)

// preset is a default: one that is a string, null, or none at all.
type preset struct {
	value    *string
	required bool
}

var (
	null     = preset{}
	required = preset{required: true}
)

func is(v string) preset { return preset{value: &v} }

func newTable(scope Scope, rows []row, docs map[string]string) *Table {
	t := &Table{byName: make(map[string]*Key, len(rows))}
	for i := range rows {
		r := &rows[i]
		k := &Key{
			Name:        r.name,
			Type:        r.typ,
			Default:     r.def.value,
			Required:    r.def.required,
			Doc:         docs[r.name],
			ReadOnly:    r.flags&readOnly != 0,
			Sensitive:   r.typ == Password,
			Internal:    r.flags&internal != 0,
			PerBroker:   r.flags&perBroker != 0,
			PerListener: r.flags&perListener != 0,
			Scope:       scope,
			check:       r.check,
		}
		if scope == TopicScope {
			k.Synonym = topicSynonyms[r.name]
		}
		t.keys = append(t.keys, k)
		t.byName[k.Name] = k
	}
	t.defined = slices.Clone(t.keys)
	slices.SortFunc(t.keys, func(a, b *Key) int { return strings.Compare(a.Name, b.Name) })
	return t
}
