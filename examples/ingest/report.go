package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// report is both sides and the rates. Its exported fields are the JSON output.
type report struct {
	Source   string      `json:"source"`
	Files    int         `json:"files"`
	Direct   rate        `json:"direct"`   // counting the files themselves
	Sent     rate        `json:"sent"`     // until the last Send returned
	Consumed rate        `json:"consumed"` // the same, until the last of three deliveries of each was acknowledged
	Tag      string      `json:"tag"`      // that was read again
	Reread   rate        `json:"reread"`
	Tags     []tagReport `json:"tags"`
	Equal    bool        `json:"equal"`

	truth      counts
	clustering counts
	broadcast  []counts
}

// tagReport is the comparison of one tag.
type tagReport struct {
	Tag        string  `json:"tag"`
	Files      tally   `json:"files"`
	Clustering tally   `json:"clustering"`
	Broadcast  []tally `json:"broadcast"` // by auditor
	Equal      bool    `json:"equal"`
}

// rate is how much went through in what time.
type rate struct {
	tally
	Seconds float64 `json:"seconds"`
}

func rateOf(t tally, d time.Duration) rate { return rate{tally: t, Seconds: d.Seconds()} }

func (r rate) String() string {
	seconds := max(r.Seconds, 1e-9)
	return fmt.Sprintf("%9d lines %11d bytes in %6.3f s: %6.2f M lines/s, %4.0f MB/s",
		r.Lines, r.Bytes, r.Seconds, float64(r.Lines)/seconds/1e6, float64(r.Bytes)/seconds/1e6)
}

// compare fills Tags and Equal.
func (r *report) compare() {
	names := maps.Clone(r.truth) // and tags that came out of nowhere
	for _, side := range append([]counts{r.clustering}, r.broadcast...) {
		maps.Copy(names, side)
	}
	r.Equal = r.Reread.tally == r.truth[r.Tag]
	for _, tag := range slices.Sorted(maps.Keys(names)) {
		t := tagReport{Tag: tag, Files: r.truth[tag], Clustering: r.clustering[tag]}
		t.Equal = t.Clustering == t.Files
		for _, side := range r.broadcast {
			t.Broadcast = append(t.Broadcast, side[tag])
			t.Equal = t.Equal && side[tag] == t.Files
		}
		r.Tags = append(r.Tags, t)
		r.Equal = r.Equal && t.Equal
	}
}

func (r *report) writeJSON(out io.Writer) error {
	return json.NewEncoder(out).Encode(r)
}

func (r *report) writeText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...any) {
		for _, c := range cells {
			fmt.Fprintf(w, "%v\t", c)
		}
		fmt.Fprintln(w)
	}
	header := []any{"tag", "lines: files", "group"}
	for _, name := range auditors {
		header = append(header, name)
	}
	header = append(header, "bytes: files", "group")
	for _, name := range auditors {
		header = append(header, name)
	}
	line(append(header, "")...)
	for _, t := range append(r.Tags, r.sum()) {
		cells := []any{printable(t.Tag), t.Files.Lines, t.Clustering.Lines}
		for _, side := range t.Broadcast {
			cells = append(cells, side.Lines)
		}
		cells = append(cells, t.Files.Bytes, t.Clustering.Bytes)
		for _, side := range t.Broadcast {
			cells = append(cells, side.Bytes)
		}
		line(append(cells, verdict(t.Equal))...)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, `
%d files under %s
files     %v
sent      %v
consumed  %v (by three)
reread    %v (tag %s: %s)
result    %s
`, r.Files, r.Source, r.Direct, r.Sent, r.Consumed, r.Reread, printable(r.Tag), verdict(r.Reread.tally == r.truth[r.Tag]), verdict(r.Equal))
	return err
}

func (r *report) sum() tagReport {
	t := tagReport{Tag: "all", Files: r.truth.total(), Clustering: r.clustering.total(), Equal: r.Equal}
	for _, side := range r.broadcast {
		t.Broadcast = append(t.Broadcast, side.total())
	}
	return t
}

// printable quotes the name of a folder that would upset a terminal.
func printable(tag string) string {
	if quoted := strconv.Quote(tag); quoted != `"`+tag+`"` {
		return quoted
	}
	return tag
}

func verdict(equal bool) string {
	if equal {
		return "equal"
	}
	return "DIFFERS"
}
