package config

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Java itself read these texts; we read the same pairs from them.
func TestPropertiesAsJavaReadsThem(t *testing.T) {
	f, err := os.Open("testdata/java_properties.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		doc64, want, _ := strings.Cut(s.Text(), "\t")
		doc, err := base64.StdEncoding.DecodeString(doc64)
		if err != nil {
			t.Fatal(err)
		}
		if got := readBack(string(doc)); got != want {
			t.Errorf("%q:\n got %s\nwant %s", doc, got, want)
		}
		n++
	}
	if n < 300 {
		t.Fatalf("only %d texts", n)
	}
}

func readBack(doc string) string {
	pairs, err := ParseProperties(strings.NewReader(doc))
	if err != nil {
		return "E"
	}
	m := map[string]string{}
	for _, p := range pairs {
		if p.Key != "" {
			m[p.Key] = p.Value
		}
	}
	e := base64.StdEncoding
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, e.EncodeToString([]byte(k))+":"+e.EncodeToString([]byte(m[k])))
	}
	return strings.Join(out, " ")
}

func TestPropertiesKeepLines(t *testing.T) {
	pairs, err := ParseProperties(strings.NewReader("# c\n\na=1\r\nb = \\\n   two\n\n! x\nc:3"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Pair{{"a", "1", 3}, {"b", "two", 4}, {"c", "3", 8}}
	if !slices.Equal(pairs, want) {
		t.Fatalf("got %v, want %v", pairs, want)
	}
	if _, err := ParseProperties(strings.NewReader("ok=1\nx=\\u12")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Fatalf("error names no line: %v", err)
	}
	latin := []byte{'k', '=', 0xe9}
	if pairs, _ := ParseProperties(strings.NewReader(string(latin))); pairs[0].Value != "é" {
		t.Fatalf("Latin-1 read as %q", pairs[0].Value)
	}
}

func FuzzParseProperties(f *testing.F) {
	for _, s := range []string{"a=b", "a\\=b:c", "a=\\\n b", "\\u00e9=\\t", "#c\n!d\na b", "\\", "a=\\u12"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		pairs, err := ParseProperties(strings.NewReader(doc))
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range pairs {
			fmt.Fprintf(&b, "%s=%s\n", escape(p.Key), escape(p.Value))
		}
		again, err := ParseProperties(strings.NewReader(b.String()))
		if err != nil || len(again) != len(pairs) {
			t.Fatalf("%q read %v, written %q, read again %v (%v)", doc, pairs, b.String(), again, err)
		}
		for i := range pairs {
			if pairs[i].Key != again[i].Key || pairs[i].Value != again[i].Value {
				t.Fatalf("%q: pair %d is %v, then %v", doc, i, pairs[i], again[i])
			}
		}
	})
}

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '\f':
			b.WriteString(`\f`)
		case '\\', ' ', '=', ':', '#', '!':
			b.WriteString(`\` + string(c))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
