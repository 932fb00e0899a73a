package groups

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unique"
)

// durable writes down what the machine holds and its log should too, group by group.
func durable(m *Machine) map[string]string {
	out := map[string]string{}
	for id, g := range m.groups {
		switch g := g.(type) {
		case *consumerGroup:
			out["group "+id] = dump(g, "checkedOff")
		case *classicGroup:
			if g.st == classicStable {
				out["group "+id] = dumpClassic(g)
			} else {
				out["group "+id] = "classic" // what a rebalance changes is not written before it ends
			}
		}
		if g.state() == "Empty" && g.kind() == classicKind {
			delete(out, "group "+id) // nothing need be written about it
		}
	}
	for id, of := range m.offsets.groups {
		out["offsets "+id] = dump(of)
	}
	for id, p := range m.offsets.pending {
		out[fmt.Sprint("pending ", id)] = dump(p)
	}
	return out
}

func dumpClassic(g *classicGroup) string {
	s := fmt.Sprintf("classic %s %s gen %d leader %s", g.protType, deref(g.protocol), g.generation, g.leader)
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		x := g.members[id]
		s += fmt.Sprintf("\n  %s %s %v %d %d %x %x", x.id, deref(x.instanceID), x.client, x.rebalanceMs, x.sessionMs, x.metadata(g.protocol), x.assignment)
	}
	return s
}

func deref(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// dump writes any value down, equal values equally: pointers are followed, maps sorted, nil is empty.
func dump(v any, skip ...string) string {
	var b strings.Builder
	dumpValue(&b, reflect.ValueOf(v), skip)
	return b.String()
}

func dumpValue(b *strings.Builder, v reflect.Value, skip []string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil")
			return
		}
		dumpValue(b, v.Elem(), skip)
	case reflect.Map:
		lines := []string{}
		for it := v.MapRange(); it.Next(); {
			var line strings.Builder
			dumpValue(&line, it.Key(), skip)
			line.WriteString(": ")
			dumpValue(&line, it.Value(), skip)
			lines = append(lines, line.String())
		}
		slices.Sort(lines)
		b.WriteString("{" + strings.Join(lines, ", ") + "}")
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(b, "%x", v)
			return
		}
		b.WriteString("[")
		for i := range v.Len() {
			dumpValue(b, v.Index(i), skip)
			b.WriteString(" ")
		}
		b.WriteString("]")
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[unique.Handle[string]]() {
			fmt.Fprint(b, v.FieldByName("value").Elem())
			return
		}
		b.WriteString("(")
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !slices.Contains(skip, name) {
				b.WriteString(name + "=")
				dumpValue(b, v.Field(i), skip)
				b.WriteString(" ")
			}
		}
		b.WriteString(")")
	default:
		fmt.Fprint(b, v)
	}
}
