package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const row = "[some-id]\nkeeps: a promise\nfile: a/b.go\n-\told()\n+\tnew()\ntest: ./a -run TestA\n"

// TestTableIsFresh finds rows that no longer apply without running a mutant.
func TestTableIsFresh(t *testing.T) {
	t.Parallel()
	root, err := findRoot()
	require.NoError(t, err)
	rows, err := loadTable(root)
	require.NoError(t, err)
	require.NotEmpty(t, rows)
	for _, m := range rows {
		t.Run(m.id, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.file)))
			require.NoError(t, err)
			_, err = m.apply(string(src))
			require.NoError(t, err)
		})
	}
}

func TestParseTable(t *testing.T) {
	t.Parallel()
	rows, err := parseTable("# comment\n\n" + row + "\n[other]\n" + row[strings.Index(row, "keeps"):])
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, mutant{
		id: "some-id", keeps: "a promise", file: "a/b.go", old: "old()", new: "new()",
		test: []string{"./a", "-run", "TestA"},
	}, rows[0])

	rows, err = parseTable(row + "tree: copy\n")
	require.NoError(t, err)
	require.True(t, rows[0].copy)

	for name, text := range map[string]string{
		"other tree":     row + "tree: oak\n",
		"no row":         strings.TrimPrefix(row, "[some-id]\n"),
		"twice":          row + row,
		"unknown key":    row + "invariant: 1\n",
		"no promise":     strings.Replace(row, "keeps: a promise\n", "", 1),
		"no file":        strings.Replace(row, "file: a/b.go\n", "", 1),
		"file elsewhere": strings.Replace(row, "a/b.go", "../b.go", 1),
		"no old line":    strings.Replace(row, "-\told()\n", "", 1),
		"no new line":    strings.Replace(row, "+\tnew()\n", "", 1),
		"nothing new":    strings.Replace(row, "new()", "old()", 1),
		"no test":        strings.Replace(row, "test: ./a -run TestA\n", "", 1),
		"test at random": strings.Replace(row, " -run TestA", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseTable(text)
			require.Error(t, err)
		})
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	const src = "package a\n\nfunc f() {\n\told()\n\tsame()\n}\n\nfunc g() {\n\tsame()\n}\n\nfunc h() {\n}\n"
	for name, row := range map[string]struct {
		m    mutant
		want string // empty: an error
	}{
		"once":          {mutant{old: "old()", new: "new()"}, strings.Replace(src, "old()", "new()", 1)},
		"line goes":     {mutant{old: "old()"}, strings.Replace(src, "old()", "", 1)},
		"below":         {mutant{below: "func g() {", old: "same()", new: "new()"}, strings.Replace(src, "g() {\n\tsame()", "g() {\n\tnew()", 1)},
		"nowhere":       {mutant{old: "gone()"}, ""},
		"twice":         {mutant{old: "same()"}, ""},
		"part of it":    {mutant{old: "old("}, ""},
		"below nothing": {mutant{below: "func x() {", old: "old()"}, ""},
		"not in there":  {mutant{below: "func h() {", old: "old()"}, ""},
		"above":         {mutant{below: "func g() {", old: "old()"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := row.m.apply(src)
			if row.want == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, row.want, got)
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	exit := errors.New("exit status 1")
	for name, row := range map[string]struct {
		output string
		err    error
		want   string
	}{
		"passes":       {"ok  \tpkg\t0.1s\n", nil, survived},
		"fails":        {"--- FAIL: TestA (0.00s)\nFAIL\n", exit, caught},
		"subtest":      {"    --- FAIL: TestA/x (0.00s)\nFAIL\n", exit, caught},
		"no tests":     {"ok  \tpkg\t0.1s [no tests to run]\n", nil, failed},
		"no build":     {"./a.go:1:1: undefined: x\nFAIL\tpkg [build failed]\n", exit, failed},
		"crash":        {"fatal error: all goroutines are asleep\nFAIL\tpkg\n", exit, failed},
		"not started":  {"", exit, failed},
		"out of time":  {"panic: test timed out after 1s\nFAIL\tpkg\n", exit, failed},
		"panic inside": {"--- FAIL: TestA (0.00s)\npanic: x\nFAIL\tpkg\n", exit, caught},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, row.want, judge(row.output, row.err)) })
	}
}

func TestCopyTree(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	want := []string{"a.go", "b/c.go"}
	for _, name := range append([]string{".git/x", "bin/x", "nested/go.mod", "nested/x.go", "go.work", "b/.d"}, want...) {
		path := filepath.Join(from, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
	}
	require.NoError(t, copyTree(to, from))
	var got []string
	require.NoError(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(to, path)
			got = append(got, filepath.ToSlash(rel))
		}
		return err
	}))
	require.Equal(t, want, got)
}

func TestPart(t *testing.T) {
	t.Parallel()
	rows := []mutant{{id: "a"}, {id: "b"}, {id: "c"}}
	for shard, want := range map[string][]mutant{"1/1": rows, "1/2": {rows[0], rows[2]}, "2/2": {rows[1]}, "4/4": nil} {
		got, err := part(rows, shard)
		require.NoError(t, err)
		require.Equal(t, want, got, shard)
	}
	for _, shard := range []string{"", "0/2", "3/2", "x"} {
		_, err := part(rows, shard)
		require.Error(t, err, shard)
	}
}
