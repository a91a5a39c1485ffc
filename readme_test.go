package mq_test

import (
	"bytes"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fences finds the code blocks of the README: language, text.
var fences = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestReadmeQuickStart: what the README begins with is at most 20 lines of
// examples/hello, which print what the README says. The second run finds the
// store of the first, where everything is consumed.
func TestReadmeQuickStart(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := fences.FindAllStringSubmatch(string(text), -1)
	at := 0
	for at < len(blocks) && blocks[at][1] != "go" {
		at++
	}
	require.Less(t, at+1, len(blocks), "README.md: no Go block followed by its output")
	shown, want := blocks[at][2], blocks[at+1][2]
	assert.LessOrEqual(t, strings.Count(shown, "\n"), 20)
	program, err := os.ReadFile("examples/hello/main.go")
	require.NoError(t, err)
	require.Contains(t, string(program), shown)

	dir := t.TempDir()
	binary := filepath.Join(dir, "hello")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./examples/hello")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	for range 2 {
		run := exec.CommandContext(t.Context(), binary)
		run.Dir = dir
		out, err = run.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, want, string(out))
	}
}

// TestInvariantsAreHeld: each invariant in ARCHITECTURE.md names a test, and
// every test and mutant that it names is there.
func TestInvariantsAreHeld(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	_, text, _ = bytes.Cut(text, []byte("\n## Invariants\n"))
	text, _, _ = bytes.Cut(text, []byte("\n## "))
	mutants, err := os.ReadFile("internal/mutants/mutants.txt")
	require.NoError(t, err)
	tests := map[string]bool{}
	for _, f := range sources(t) {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && f.test {
				tests[fn.Name.Name] = true
			}
		}
	}
	invariants := regexp.MustCompile(`(?m)^\d\. \*\*`).Split(string(text), -1)[1:]
	require.Len(t, invariants, 9)
	test, mutant := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`"), regexp.MustCompile("`([a-z0-9]+(?:-[a-z0-9]+)+)`")
	for i, invariant := range invariants {
		named := test.FindAllStringSubmatch(invariant, -1)
		require.NotEmpty(t, named, "invariant %d", i+1)
		for _, m := range named {
			require.True(t, tests[m[1]], "invariant %d: no test %s", i+1, m[1])
		}
		for _, m := range mutant.FindAllStringSubmatch(invariant, -1) {
			require.Contains(t, string(mutants), "["+m[1]+"]", "invariant %d", i+1)
		}
	}
}

// TestCodeMap: ARCHITECTURE.md is short, and names each file of the packages it
// goes through, once.
func TestCodeMap(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	require.NoError(t, err)
	require.LessOrEqual(t, strings.Count(string(text), "\n"), 200)
	from, to := strings.Index(string(text), "## Code map"), strings.Index(string(text), "## Invariants")
	codeMap := string(text)[from:to]
	for _, dir := range []string{".", "commitlog"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, name := range files {
			if name = filepath.Base(name); !strings.HasSuffix(name, "_test.go") {
				require.Contains(t, codeMap, "`"+name+"`", "of %s", dir)
			}
		}
	}
	rows := map[string]bool{}
	for line := range strings.Lines(codeMap) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "`"); ok && strings.HasPrefix(line, "| `") {
			require.False(t, rows[first], "%s has two rows", first)
			rows[first] = true
		}
	}
}

// TestDocumentLinks: every file that the documents link to is there.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	decisions, err := filepath.Glob("docs/adr/*.md")
	require.NoError(t, err)
	adapters, err := filepath.Glob("contrib/*/README.md")
	require.NoError(t, err)
	documents = append(append(documents, decisions...), adapters...)
	documents = append(documents, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, document := range documents {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		prose := fences.ReplaceAllString(string(text), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(document), m[1]))
			require.NoError(t, err, "%s links to %s", document, m[1])
		}
	}
}
