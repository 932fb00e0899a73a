package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// docs/configuration.md has a line for each setting that is acted on, and names each of the others.
func TestConfigurationPage(t *testing.T) {
	raw, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	for _, table := range []*Table{Topic(), Broker()} {
		for k := range table.Describable() {
			want := pageLine(k)
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
	for name := range topicDocs {
		if Topic().Lookup(name) == nil {
			t.Errorf("no topic setting %s", name)
		}
	}
	for name := range brokerDocs {
		if Broker().Lookup(name) == nil {
			t.Errorf("no broker setting %s", name)
		}
	}
}

// pageLine is how the page speaks of a setting.
func pageLine(k *Key) string {
	if !k.ActedOn() {
		return "`" + k.Name + "`"
	}
	def := "null"
	switch {
	case k.Required:
		def = "(none)"
	case k.Default != nil && *k.Default == "":
		def = "(empty)"
	case k.Default != nil:
		def = *k.Default
	}
	if k.Scope == TopicScope {
		return fmt.Sprintf("| `%s` | %s | `%s` | %s |", k.Name, def, k.Synonym, k.Doc)
	}
	when := "at a restart"
	switch {
	case k.ReadOnly:
	case k.PerBroker:
		when = "at once, per broker"
	default:
		when = "at once"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", k.Name, def, when, k.Doc)
}
