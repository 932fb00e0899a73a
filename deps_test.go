package millrace

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace-project/millrace"

// floors is the house as it is drawn in docs/ARCHITECTURE.md: packages from the ground up,
// and for each the packages of ours that it may import. A new arrow is a line here, so it is
// seen in review. The test parses the files itself: one that asked the go command would pass
// stale from the test cache.
var floors = []struct {
	floor   int
	pkg     string
	imports string
}{
	{0, "assignor", ""},
	{0, "batch", ""},
	{0, "records", ""},
	{0, "vfs", ""},
	{0, "config", ""},
	{0, "wire", ""},
	{0, "workers", ""},

	{1, "netio", "workers"},
	{1, "index", "vfs"},
	{1, "metadata", "config records"},
	{1, "coordinator", "wire workers"},
	{1, "session", ""},

	{2, "segment", "batch index vfs"},

	{3, "compaction", "batch index segment vfs"},

	{4, "commitlog", "batch compaction index segment vfs"},

	{5, "replication", "batch commitlog metadata segment"},
	{5, "quorum", "batch commitlog coordinator records vfs"},

	{6, "controller", "config coordinator metadata quorum records"},
	{6, "txn", "coordinator records wire"},
	{6, "groups", "assignor config coordinator metadata records wire"},

	{7, "broker", "batch commitlog config controller coordinator groups metadata netio quorum records replication segment session txn vfs wire"},

	{8, "", "broker config"},
	{8, "bench", "batch commitlog wire"},
	{8, "fuzz", "*"},
	{8, "fuzz/history", ""},
	{8, "fuzz/mutants", ""},
	{8, "cmd/millrace", "*"},
}

// engine is the library: it could leave for its own module by moving its folders, so beyond
// the standard library it knows the kernel's calls and the compressors, nothing else.
var engine = []string{"batch", "vfs", "index", "segment", "compaction", "commitlog"}

var engineThirdParty = []string{
	"golang.org/x/sys/",
	"github.com/klauspost/compress/",
	"github.com/pierrec/lz4/v4",
	"github.com/dgraph-io/ristretto/v2",
}

func TestFloors(t *testing.T) {
	floorOf := map[string]int{}
	allowed := map[string][]string{}
	for _, f := range floors {
		floorOf[f.pkg] = f.floor
		allowed[f.pkg] = strings.Fields(f.imports)
	}
	for _, f := range floors {
		for _, imp := range allowed[f.pkg] {
			if imp == "*" {
				continue
			}
			lower, ok := floorOf[imp]
			if !ok {
				t.Errorf("the table lets %q import %q, which it does not have", f.pkg, imp)
			} else if lower > f.floor || lower == f.floor && f.floor != 5 && f.floor != 8 {
				t.Errorf("the table lets %q (floor %d) import %q (floor %d): arrows go down", f.pkg, f.floor, imp, lower)
			}
		}
	}

	for pkg, imports := range importsByPackage(t) {
		ok, known := allowed[pkg]
		if !known {
			t.Errorf("package %q is not in the table of floors", pkg)
			continue
		}
		for _, imp := range imports {
			if ours, is := strings.CutPrefix(imp, module+"/"); is {
				ours = strings.TrimSuffix(ours, "/internal/testdir")
				if !slices.Contains(ok, ours) && !slices.Contains(ok, "*") {
					t.Errorf("package %q imports %q: not in its line of the table", pkg, ours)
				}
			} else if slices.Contains(engine, pkg) && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				if !slices.ContainsFunc(engineThirdParty, func(p string) bool { return strings.HasPrefix(imp, p) }) {
					t.Errorf("engine package %q imports %q: the engine has only the compressors and the kernel's calls", pkg, imp)
				}
			}
		}
	}
}

// importsByPackage reads the imports of every non-test file of this module.
func importsByPackage(t *testing.T) map[string][]string {
	t.Helper()
	byPkg := map[string]map[string]bool{}
	fset := token.NewFileSet()
	walkGo(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "." {
			pkg = ""
		}
		if byPkg[pkg] == nil {
			byPkg[pkg] = map[string]bool{}
		}
		for _, imp := range f.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			byPkg[pkg][p] = true
		}
	})
	out := map[string][]string{}
	for pkg, set := range byPkg {
		for imp := range set {
			out[pkg] = append(out[pkg], imp)
		}
		sort.Strings(out[pkg])
	}
	return out
}

// walkGo calls fn with each Go file of this module, relative to its root; interop has its own
// module and is left out.
func walkGo(t *testing.T, fn func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "interop" || path != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") {
			fn(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
