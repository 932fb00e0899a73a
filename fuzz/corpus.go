package fuzz

import (
	"embed"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// corpora has a file for each target: inputs that each take another way through it, as small as a
// search has found them (TestCorpora writes them). A stream begins with them.
//
//go:embed testdata/corpora
var corpora embed.FS

// kept is an input of a corpus, and what becomes of it, in the words that tell inputs apart.
type kept struct {
	outcome string
	input   []byte
}

// corpusFile is where a target's corpus is.
func corpusFile(target string) string { return "testdata/corpora/" + target + ".txt" }

// corpus returns the target's corpus; a target that has no file has none.
func (t *Target) corpus() []kept {
	p, err := corpora.ReadFile(corpusFile(t.Name))
	if err != nil {
		return nil
	}
	all, err := parseCorpus(string(p))
	if err != nil {
		panic("BUG: " + corpusFile(t.Name) + ": " + err.Error())
	}
	return all
}

// parseCorpus reads lines of an outcome in Go's quotes and an input in base64.
func parseCorpus(text string) (all []kept, err error) {
	for line := range strings.Lines(text) {
		quoted, b64, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		outcome, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("outcome %s: %w", quoted, err)
		}
		p, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			return nil, fmt.Errorf("input of outcome %s: %w", quoted, err)
		}
		all = append(all, kept{outcome, p})
	}
	return all, nil
}

// formatCorpus is what parseCorpus reads.
func formatCorpus(all []kept) string {
	var b strings.Builder
	for _, k := range all {
		fmt.Fprintf(&b, "%q\t%s\n", k.outcome, base64.StdEncoding.EncodeToString(k.input))
	}
	return b.String()
}
