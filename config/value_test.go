package config

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

func tableOf(t *testing.T, scope string) *Table {
	t.Helper()
	switch scope {
	case "topic":
		return Topic()
	case "group":
		return Group()
	case "metrics":
		return ClientMetrics()
	case "broker":
		return Broker()
	}
	t.Fatalf("no scope %q", scope)
	return nil
}

// Kafka 4.2's own ConfigDef read these values, or said why not; we do the same, word for word.
func TestValuesAsKafkaReadsThem(t *testing.T) {
	f, err := os.Open("testdata/kafka_values.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		p := strings.Split(s.Text(), "\t")
		if len(p) != 5 {
			t.Fatalf("line %q", s.Text())
		}
		k := tableOf(t, p[0]).Lookup(p[1])
		if k == nil {
			t.Fatalf("no key %s", p[1])
		}
		v, err := k.Parse(&p[2])
		got := "ok\t" + v.String()
		if err != nil {
			got = "bad\t" + err.Error()
		}
		if want := p[3] + "\t" + p[4]; got != want {
			t.Errorf("%s=%q:\n got %s\nwant %s", p[1], p[2], got, want)
		}
		n++
	}
	if n < 900 {
		t.Fatalf("only %d values", n)
	}
}

func TestDoublesPrintAsInJava(t *testing.T) {
	for s, want := range map[string]string{
		"0": "0.0", "-0": "-0.0", "0.001": "0.001", "0.0001": "1.0E-4", "9999999": "9999999.0",
		"10000000": "1.0E7", "1.7976931348623157e308": "1.7976931348623157E308", "1e400": "Infinity",
		"-Infinity": "-Infinity", "NaN": "NaN", "1.25e-7": "1.25E-7",
	} {
		f, ok := javaParseDouble(s)
		if got := javaDouble(f); !ok || got != want {
			t.Errorf("%s: got %s (%v), want %s", s, got, ok, want)
		}
	}
	for _, s := range []string{"", ".", "e5", "0x1p3", "1_0", "inf", "nan", "1ff"} {
		if _, ok := javaParseDouble(s); ok {
			t.Errorf("%q was read as a number", s)
		}
	}
}

// Every default must parse, and print as itself.
func TestDefaultsHold(t *testing.T) {
	for _, table := range []*Table{Broker(), Topic(), Group(), ClientMetrics()} {
		for k := range table.All() {
			v, err := k.DefaultValue()
			switch {
			case k.Required:
				if err == nil {
					t.Errorf("%s: required, yet has a default", k.Name)
				}
			case err != nil && k.check != nonEmpty{}:
				t.Errorf("%s: %v", k.Name, err)
			case k.Default == nil && !v.Null, k.Default != nil && v.String() != *k.Default:
				t.Errorf("%s: default %v prints as %q", k.Name, k.Default, v.String())
			}
		}
	}
}

func FuzzParseValue(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "true", "a,b", "1e9", " x ", "1:2", "*", "by_duration:PT1S"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, table := range []*Table{Broker(), Topic(), Group(), ClientMetrics()} {
			for k := range table.All() {
				v, err := k.Parse(&s)
				if err != nil {
					continue
				}
				shown := v.String()
				if strings.TrimFunc(shown, func(r rune) bool { return r <= ' ' }) != shown {
					continue // an outer control character of a list's outer element: Java trims the list whole
				}
				again, err := k.Parse(&shown)
				if err != nil || again.String() != shown {
					t.Fatalf("%s=%q prints as %q, which reads as %q (%v)", k.Name, s, shown, again.String(), err)
				}
			}
		}
	})
}
