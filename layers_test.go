package mq_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	modulePath   = "github.com/pocketmq/mq"
	walModule    = "github.com/tidwall/wal"
	testify      = "github.com/stretchr/testify"
	maxFileLines = 600
)

// sourceFile is a Go file of the root module.
type sourceFile struct {
	name  string // with slashes, relative to the root
	dir   string // its directory, "." for the root
	test  bool
	lines int
	text  string
	fset  *token.FileSet
	ast   *ast.File
}

func (f *sourceFile) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func (f *sourceFile) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.fset.Position(n.Pos()).Line)
}

// sources parses every Go file of the root module, whatever system it is for.
func sources(t *testing.T) []*sourceFile {
	t.Helper()
	return sourcesBelow(t, ".")
}

// sourcesBelow parses those of the module in a directory.
func sourcesBelow(t *testing.T, root string) []*sourceFile {
	t.Helper()
	var files []*sourceFile
	fset := token.NewFileSet()
	err := filepath.WalkDir(filepath.FromSlash(root), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == filepath.FromSlash(root) {
				return nil
			}
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir // a module of its own, or no code
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		slashed := filepath.ToSlash(name)
		files = append(files, &sourceFile{
			name: slashed, dir: path.Dir(slashed), test: strings.HasSuffix(name, "_test.go"),
			lines: strings.Count(string(src), "\n"), text: string(src), fset: fset, ast: tree,
		})
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// layer says how high a package stands: it may import what stands lower, and,
// at the bottom, what stands beside it. Programs and test kits stand above all.
func layer(dir string) int {
	switch {
	case dir == ".":
		return 3
	case dir == "commitlog", dir == "consumequeue", dir == "internal/journal":
		return 2
	case dir == "internal/mutants":
		return 4
	case strings.HasPrefix(dir, "internal/"):
		return 1
	default:
		return 4
	}
}

// TestLayers: mq → consumequeue, commitlog, internal/journal → other internal/*.
// Tests may reach further up, for the kits that stand there.
func TestLayers(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, imported := range f.imports() {
			dir := "."
			if imported != modulePath {
				var ours bool
				if dir, ours = strings.CutPrefix(imported, modulePath+"/"); !ours {
					continue
				}
			}
			from, to := layer(f.dir), layer(dir)
			beside := from == to && (from == 1 || from == 4)
			if to >= from && !beside {
				t.Errorf("%s imports %s, which does not stand below it", f.name, imported)
			}
		}
	}
}

// TestOnlyTheirOwn: what a payload means is the affair of mq alone, so commitlog
// knows no groups and consumequeue reads no bodies; that a file may be mapped is
// the affair of commitlog and of the file systems.
func TestOnlyTheirOwn(t *testing.T) {
	t.Parallel()
	mapsFiles := []string{"commitlog", "internal/vfs", "internal/crashfs"}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		imports := f.imports()
		if slices.Contains(imports, modulePath+"/internal/record") && f.dir != "." {
			t.Errorf("%s imports the meaning of payloads", f.name)
		}
		if slices.Contains(mapsFiles, f.dir) || !slices.Contains(imports, modulePath+"/internal/vfs") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Map", "Mapping", "Unmapped"}, sel.Sel.Name) {
				t.Errorf("%s: maps a file", f.at(n))
			}
			return true
		})
	}
}

// TestLibrariesStayInTheirPlace: tidwall/wal is for the journal and nothing
// else, and who imports PocketMQ does not get a test library with it.
func TestLibrariesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		for _, imported := range f.imports() {
			if imported == walModule && f.dir != "internal/journal" {
				t.Errorf("%s imports %s", f.name, imported)
			}
			if strings.HasPrefix(imported, testify) && !f.test {
				t.Errorf("%s is no test and imports %s", f.name, imported)
			}
		}
	}
}

// TestRequirements: four modules and what they pull in, nothing else.
func TestRequirements(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	var direct []string
	inBlock := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		one, single := strings.CutPrefix(line, "require ")
		switch {
		case line == "require (":
			inBlock = true
			continue
		case line == ")":
			inBlock = false
			continue
		case single:
			line = one
		case !inBlock:
			require.False(t, strings.HasPrefix(line, "replace"), "a replacement does not reach who imports the module")
			continue
		}
		if line != "" && !strings.HasPrefix(line, "//") && !strings.HasSuffix(line, "// indirect") {
			direct = append(direct, strings.Fields(line)[0])
		}
	}
	slices.Sort(direct)
	require.Equal(t, []string{"github.com/cespare/xxhash/v2", testify, walModule, "golang.org/x/sync"}, direct)
}

// TestGoroutinesAreNamed: what runs on a goroutine of its own is a function
// called run…, so that a dump tells whose it is, and there is a place that says
// who stops it and who waits. Programs and examples may be briefer.
func TestGoroutinesAreNamed(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test || layer(f.dir) == 4 {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				if !strings.HasPrefix(calledName(n.Call.Fun), "run") {
					t.Errorf("%s: a go statement that does not call a function named run…", f.at(n))
				}
			case *ast.CallExpr:
				// sync.WaitGroup and errgroup.Group start goroutines too.
				if f.startsGoroutine(n) && !strings.HasPrefix(calledName(n.Args[0]), "run") {
					t.Errorf("%s: a Go call of something not named run…", f.at(n))
				}
			}
			return true
		})
	}
}

func (f *sourceFile) startsGoroutine(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && method.Sel.Name == "Go" && len(call.Args) == 1
}

// calledName is the name of the function or method that an expression names or
// calls, empty for a function literal.
func calledName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr:
		return calledName(e.Fun)
	case *ast.IndexExpr: // a generic function
		return calledName(e.X)
	}
	return ""
}

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if !f.test && f.lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d", f.name, f.lines, maxFileLines)
		}
	}
}

// TestExportedNamesAreDocumented: of every package, also of those nobody
// outside can import. A group of constants or variables may share its comment.
func TestExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test || f.ast.Name.Name == "main" {
			continue
		}
		for _, decl := range f.ast.Decls {
			for _, n := range undocumented(decl) {
				t.Errorf("%s: %s has no comment", f.at(n), n.Name)
			}
		}
	}
}

func undocumented(decl ast.Decl) []*ast.Ident {
	var names []*ast.Ident
	add := func(doc *ast.CommentGroup, idents ...*ast.Ident) {
		for _, n := range idents {
			if n.IsExported() && doc.Text() == "" {
				names = append(names, n)
			}
		}
	}
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv != nil && (decl.Name.Name == "Error" || decl.Name.Name == "Unwrap") {
			return nil // everybody knows what they do
		}
		if decl.Recv == nil || receiverIsExported(decl.Recv.List[0].Type) {
			add(decl.Doc, decl.Name)
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				add(firstOf(spec.Doc, decl.Doc), spec.Name)
			case *ast.ValueSpec:
				add(firstOf(spec.Doc, spec.Comment, decl.Doc), spec.Names...)
			}
		}
	}
	return names
}

func firstOf(docs ...*ast.CommentGroup) *ast.CommentGroup {
	for _, d := range docs {
		if d != nil {
			return d
		}
	}
	return nil
}

func receiverIsExported(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiverIsExported(e.X)
	case *ast.IndexExpr:
		return receiverIsExported(e.X)
	case *ast.IndexListExpr:
		return receiverIsExported(e.X)
	case *ast.Ident:
		return e.IsExported()
	}
	return false
}
