package mq_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nestedModules returns the directories, with slashes, of the modules below the
// root's.
func nestedModules(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 1 && d.Name()[0] == '.'):
			return fs.SkipDir
		case d.Name() == "go.mod" && name != "go.mod":
			dirs = append(dirs, filepath.ToSlash(filepath.Dir(name)))
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	return dirs
}

// TestNestedModules: they are in the workspace, named by their folder, and build
// alone against this tree.
func TestNestedModules(t *testing.T) {
	t.Parallel()
	work, err := os.ReadFile("go.work")
	require.NoError(t, err)
	for _, dir := range nestedModules(t) {
		require.Regexp(t, `(?m)^\t\./`+regexp.QuoteMeta(dir)+`$`, string(work), "go.work")
		text, err := os.ReadFile(filepath.Join(filepath.FromSlash(dir), "go.mod"))
		require.NoError(t, err)
		mod := string(text)
		require.Regexp(t, `(?m)^module `+modulePath+"/"+regexp.QuoteMeta(dir)+`$`, mod, dir)
		for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?`+modulePath+`(\S*) v0\.0\.0`).FindAllStringSubmatch(mod, -1) {
			replaced := regexp.MustCompile(`(?m)^replace ` + modulePath + regexp.QuoteMeta(m[1]) + ` => (\S+)$`).FindStringSubmatch(mod)
			require.NotNil(t, replaced, "%s needs %s", dir, modulePath+m[1])
			require.Equal(t, path.Join(".", m[1]), path.Join(dir, replaced[1]), dir)
		}
	}
}

// TestContribUsesTheSurface: what lives under contrib has nothing that others
// could not have: it imports mq and, in tests, its test kit. It comes with a
// README and an example, and its exported names have comments.
func TestContribUsesTheSurface(t *testing.T) {
	t.Parallel()
	for _, dir := range nestedModules(t) {
		if !strings.HasPrefix(dir, "contrib/") {
			continue
		}
		_, err := os.Stat(filepath.Join(filepath.FromSlash(dir), "README.md"))
		require.NoError(t, err)
		examples := 0
		for _, f := range sourcesBelow(t, dir) {
			examples += strings.Count(f.text, "\nfunc Example")
			for _, imported := range f.imports() {
				switch rest, ours := strings.CutPrefix(imported, modulePath+"/"); {
				case strings.HasPrefix(imported, testify) && !f.test:
					t.Errorf("%s is no test and imports %s", f.name, imported)
				case !ours, rest == "mqtest" && f.test, strings.HasPrefix(rest, "contrib/"):
				default:
					t.Errorf("%s imports %s", f.name, imported)
				}
			}
			if f.test || f.ast.Name.Name == "main" {
				continue
			}
			if f.lines > maxFileLines {
				t.Errorf("%s has %d lines, at most %d", f.name, f.lines, maxFileLines)
			}
			for _, decl := range f.ast.Decls {
				for _, n := range undocumented(decl) {
					t.Errorf("%s: %s has no comment", f.at(n), n.Name)
				}
			}
		}
		require.Positive(t, examples, "%s has no example", dir)
	}
}
