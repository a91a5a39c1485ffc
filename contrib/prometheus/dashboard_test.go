package mqprom

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// promQL are the words of the query language, and of Grafana's, that the dashboard
// uses. Every other word in a query has to be a metric, a label or a variable.
var promQL = []string{"sum", "max", "min", "by", "rate", "increase", "label_values", "h"}

var (
	quoted    = regexp.MustCompile(`"[^"]*"`)
	ranges    = regexp.MustCompile(`\[[^\]]*\]`)
	words     = regexp.MustCompile(`\$?[a-zA-Z_][a-zA-Z0-9_]*`)
	variables = regexp.MustCompile(`\$([a-zA-Z_]+)`)
	grouping  = regexp.MustCompile(`by \(([^)]*)\)`)
	legends   = regexp.MustCompile(`{{(\w+)}}`)
	counting  = regexp.MustCompile(`(?:rate|increase)\((\w+)(?:{[^}]*})?\[`)
)

// dashboard is what the test needs of Grafana's format.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotEmpty(t, d.Panels)
	return d
}

// TestDashboard: the queries of the dashboard use metrics and labels that there are,
// counters by their rate and nothing else, and it shows every metric.
func TestDashboard(t *testing.T) {
	t.Parallel()
	metrics, d := described(t), readDashboard(t)
	known := []string{"$__range", "$__rate_interval"}
	for _, v := range d.Templating.List {
		known = append(known, "$"+v.Name)
	}
	shown := map[string]bool{}
	check := func(query string) (used []string, labels []string) {
		for _, v := range variables.FindAllString(query, -1) {
			require.Contains(t, known, v, query)
		}
		bare := ranges.ReplaceAllString(quoted.ReplaceAllString(query, ""), "")
		for _, word := range words.FindAllString(bare, -1) {
			if _, ok := metrics[word]; ok {
				used = append(used, word)
			} else if !slices.Contains(promQL, word) {
				labels = append(labels, word)
			}
		}
		require.Len(t, used, 1, "%s: one metric each", query)
		for _, label := range labels {
			require.Contains(t, metrics[used[0]], label, "%s: of %s", query, used[0])
		}
		shown[used[0]] = true
		return used, labels
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			check(v.Query)
		}
	}
	clear(shown)
	for _, p := range d.Panels {
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, target := range p.Targets {
			used, _ := check(target.Expr)
			counted := counting.FindStringSubmatch(target.Expr)
			require.Equal(t, strings.HasSuffix(used[0], "_total"), len(counted) == 2, "%s: counters by their rate", target.Expr)
			by := ""
			if found := grouping.FindStringSubmatch(target.Expr); found != nil {
				by = found[1]
			}
			for _, label := range legends.FindAllStringSubmatch(target.LegendFormat, -1) {
				require.Contains(t, strings.Split(by, ", "), label[1], "%s: %s", target.Expr, target.LegendFormat)
			}
		}
	}
	for name := range metrics {
		require.True(t, shown[name], "no panel shows %s", name)
	}
}

// TestDashboardLayout: panels have ids of their own and do not overlap.
func TestDashboardLayout(t *testing.T) {
	t.Parallel()
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range readDashboard(t).Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// TestReadmeListsMetrics: all of them, with their labels, and none that is not.
func TestReadmeListsMetrics(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	listed := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); ok && strings.HasPrefix(line, "| `pocketmq_") {
			listed[name], _, _ = strings.Cut(rest, " |")
		}
	}
	for name, labels := range described(t) {
		got, ok := listed[name]
		require.True(t, ok, name)
		require.Equal(t, strings.Join(labels, ", "), got, name)
		delete(listed, name)
	}
	require.Empty(t, listed)
}
