package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	xs := []float64{3, 1, 2}
	require.Equal(t, 2.0, median(xs))
	require.Equal(t, []float64{3, 1, 2}, xs, "the caller's order stays")
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
	require.Equal(t, 7.0, median([]float64{7}))
}

func TestRatioIsMedianOfPairs(t *testing.T) {
	t.Parallel()
	// The machine slows down tenfold on the way; the ratio does not notice.
	p := paired{reference: []float64{1, 2, 10}, engine: []float64{0.5, 1, 5}}
	r := p.throughput("x", 100, 1.2)
	require.Equal(t, 2.0, *r.Ratio)
	require.Equal(t, 100.0, r.Value)
	require.Equal(t, 50.0, *r.Reference)
	require.True(t, r.Pass)
	r = p.duration("x", 1_000_000, 0.2)
	require.Equal(t, 0.5, *r.Ratio)
	require.Equal(t, 1.0, r.Value)
	require.Equal(t, 2.0, *r.Reference)
	require.False(t, r.Pass)
}

func TestJSONLine(t *testing.T) {
	t.Parallel()
	p := paired{reference: []float64{1}, engine: []float64{0.5}}
	r := p.throughput("end to end", 10, 1.2)
	r.ID = "P1"
	alone := perMessage("send", 0.25, 0.1)
	alone.ID = "P9"
	var out bytes.Buffer
	require.NoError(t, writeJSON(&out, []result{r, alone}))
	require.Equal(t, `{"id":"P1","what":"end to end","value":20,"unit":"messages/s","reference":10,"ratio":2,"target":1.2,"pass":true}
{"id":"P9","what":"send","value":0.25,"unit":"allocations/message","reference":null,"ratio":null,"target":0.1,"pass":false}
`, out.String())
}

func TestTable(t *testing.T) {
	t.Parallel()
	p := paired{reference: []float64{1, 1, 1}, engine: []float64{2, 4, 8}}
	r := p.duration("send", 1_000_000, 0.2)
	r.ID = "P3"
	var out bytes.Buffer
	require.NoError(t, writeTable(&out, []result{r}))
	require.Equal(t, `    what  value  reference  unit        ratio  spread  target  pass
P3  send  4      1          µs/message  4      2…8     ≤ 0.2   no
`, out.String())
}

func TestShort(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{
		0: "0", 0.2: "0.2", 1.23456: "1.23", 12.3456: "12.3", 123.456: "123", 123456: "123456",
		1234567: "1.23 M", 12345678: "12.3 M", 0.0000123: "0.00001",
	} {
		require.Equal(t, want, short(x))
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	ids := func(list string) (ids []string) {
		chosen, err := choose(list)
		require.NoError(t, err)
		for _, f := range chosen {
			ids = append(ids, f.id)
		}
		return ids
	}
	require.Equal(t, []string{"P1", "P3", "P9"}, ids(""))
	require.Equal(t, []string{"P9", "P1"}, ids("p9, P1"))
	_, err := choose("P1,P99")
	require.ErrorContains(t, err, `"P99"`)
}

// TestFigures runs each with next to nothing: do they measure what they say,
// and does everything arrive?
func TestFigures(t *testing.T) {
	t.Parallel()
	for _, f := range figures {
		t.Run(f.id, func(t *testing.T) {
			t.Parallel()
			b := &bench{dir: t.TempDir(), pairs: 2, share: 1000, progress: &progress{}}
			results, err := b.measure(t.Context(), f)
			require.NoError(t, err)
			require.NotEmpty(t, results)
			var out bytes.Buffer
			require.NoError(t, writeJSON(&out, results))
			for line := range strings.Lines(out.String()) {
				var fields map[string]any
				require.NoError(t, json.Unmarshal([]byte(line), &fields))
				require.Len(t, fields, 8)
				require.Equal(t, f.id, fields["id"])
			}
		})
	}
}

func TestSumsTellLoss(t *testing.T) {
	t.Parallel()
	all := bodies(128)
	require.Len(t, all, distinctBodies)
	require.NoError(t, checkSum(2*sumOf(all, 1000), sumOf(all, 1000)+sumOf(all, 1000)))
	require.ErrorIs(t, checkSum(sumOf(all, 1000), sumOf(all, 999)), errWrongSum)
}

func TestWriteFileIsTimed(t *testing.T) {
	t.Parallel()
	b := &bench{dir: t.TempDir()}
	took, err := b.writeFile(10, make([]byte, 100))
	require.NoError(t, err)
	require.Greater(t, took, time.Duration(0))
}
