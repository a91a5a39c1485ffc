package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// result is one line of the output.
type result struct {
	ID        string   `json:"id"`
	What      string   `json:"what"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`      // of value and reference
	Reference *float64 `json:"reference"` // null where there is nothing to compare with
	Ratio     *float64 `json:"ratio"`     // median of the pairs; null without a reference
	Target    float64  `json:"target"`    // for the ratio, or for the value where there is none
	Pass      bool     `json:"pass"`

	atLeast bool // target is a lower bound
	ratios  []float64
}

// judge sets Pass. A target without a reference is one for the value.
func (r *result) judge() {
	got := r.Value
	if r.Ratio != nil {
		got = *r.Ratio
	}
	r.Pass = got <= r.Target
	if r.atLeast {
		r.Pass = got >= r.Target
	}
}

func writeJSON(out io.Writer, results []result) error {
	lines := json.NewEncoder(out)
	for i := range results {
		if err := lines.Encode(&results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *result) cells() []string {
	reference, ratio, spread := "–", "–", ""
	if r.Reference != nil {
		reference = short(*r.Reference)
	}
	if r.Ratio != nil {
		ratio = short(*r.Ratio)
		spread = short(slices.Min(r.ratios)) + "…" + short(slices.Max(r.ratios))
	}
	bound, pass := "≤ ", "no"
	if r.atLeast {
		bound = "≥ "
	}
	if r.Pass {
		pass = "yes"
	}
	return []string{r.ID, r.What, short(r.Value), reference, r.Unit, ratio, spread, bound + short(r.Target), pass}
}

func writeTable(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells []string) {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row([]string{"", "what", "value", "reference", "unit", "ratio", "spread", "target", "pass"})
	for i := range results {
		row(results[i].cells())
	}
	return w.Flush()
}

// short prints three digits that matter, in millions where there are some.
func short(x float64) string {
	switch {
	case math.Abs(x) >= 1e6:
		return short(x/1e6) + " M"
	case math.Abs(x) >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x != 0 && math.Abs(x) < 0.001:
		return strconv.FormatFloat(x, 'f', 5, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// median of xs, which is not empty; of an even number the mean of the middle two.
func median(xs []float64) float64 {
	sorted := slices.Sorted(slices.Values(xs))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
