package millrace

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/wire"
)

const (
	maxFunctionLines = 70
	maxFileLines     = 600
)

// argued lists what may be larger, each with its reason.
var argued = map[string]string{}

func TestFunctionsFitOnAScreen(t *testing.T) {
	eachFile(t, func(path string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") || ast.IsGenerated(f) {
			return
		}
		if n := fset.Position(f.End()).Line; n > maxFileLines && argued[path] == "" {
			t.Errorf("%s has %d lines; over %d a file is argued or split", path, n, maxFileLines)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			from, to := fset.Position(fn.Pos()).Line, fset.Position(fn.End()).Line
			if n := to - from + 1; n > maxFunctionLines && argued[path+":"+fn.Name.Name] == "" {
				t.Errorf("%s:%d: %s has %d lines; over %d a function is argued or split", path, from, fn.Name.Name, n, maxFunctionLines)
			}
		}
	})
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	comment := map[string]bool{}
	eachFile(t, func(path string, _ *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		comment[dir] = comment[dir] || f.Doc != nil
	})
	for dir, has := range comment {
		if !has {
			t.Errorf("package %s has no package comment: what it is, what it owns, what it refuses", dir)
		}
	}
}

func TestNoGrabBags(t *testing.T) {
	bag := regexp.MustCompile(`(^|/)(util|utils|common|types|helper|helpers|misc|base|shared)(/|\.go$)`)
	walkGo(t, func(path string) {
		if bag.MatchString(path) {
			t.Errorf("%s: name it after what it holds", path)
		}
	})
}

// time.Now is called where time enters the house and nowhere else: everything below is given nowMs.
func TestTimeEntersAtTheEdge(t *testing.T) {
	mayAsk := map[string]bool{".": true, "broker": true, "coordinator": true, "commitlog": true, "netio": true, "bench": true, "fuzz": true, "fuzz/mutants": true, "cmd/millrace": true, "quorum": true, "replication": true, "segment": false}
	eachFile(t, func(path string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") || mayAsk[filepath.ToSlash(filepath.Dir(path))] {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Now" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Now: take nowMs instead", fset.Position(n.Pos()))
				}
			}
			return true
		})
	})
}

// Every served API has its line in docs/compat.md, with the versions that the table serves.
func TestCompatNamesEveryServedAPI(t *testing.T) {
	doc, err := os.ReadFile("docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, api := range append(wire.Served(), wire.Own()...) {
		want := fmt.Sprintf("| %d | %s | %d–%d |", api.Key, api.Name, api.Min, api.Max)
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/compat.md has no line %q", want)
		}
	}
}

func eachFile(t *testing.T, fn func(path string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	fset := token.NewFileSet()
	walkGo(t, func(path string) {
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		fn(path, fset, f)
	})
}
