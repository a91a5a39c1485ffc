package syscalls

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// The calls a store makes. Those with a name or a descriptor are injected into
// for the files of the store only: the Go runtime makes such calls too, and
// would rightly not survive some of them failing.
var (
	byPath = []string{
		"write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate",
		"fallocate", "mmap", "openat", "unlinkat", "mkdirat",
	}
	byAddress = []string{"madvise", "msync"}
)

// fault is what happens to a call.
type fault struct {
	name   string
	inject string // strace's words
	once   bool   // only the N-th, not all from there on
	kills  bool
}

var (
	failOnce   = fault{name: "EIO", inject: "error=EIO", once: true}
	noSpace    = fault{name: "ENOSPC", inject: "error=ENOSPC", once: true}
	noMemory   = fault{name: "ENOMEM", inject: "error=ENOMEM", once: true}
	failAlways = fault{name: "EIO from there on", inject: "error=EIO"}
	fullAlways = fault{name: "ENOSPC from there on", inject: "error=ENOSPC"}
	last       = fault{name: "SIGKILL", inject: "signal=KILL", once: true, kills: true}
)

// faultsOf are those that a call can have.
func faultsOf(call string) []fault {
	switch call {
	case "mmap", "madvise", "msync":
		return []fault{failOnce, noMemory, failAlways, last}
	case "fsync", "fdatasync":
		return []fault{failOnce, noSpace, failAlways, last}
	}
	return []fault{failOnce, noSpace, failAlways, fullAlways, last}
}

// probe is which calls the workload makes.
type probe struct {
	counts map[string]int      // of calls that concern the store
	paths  map[string][]string // that they name
}

// callLine is a line of strace -f: a process, a call, its arguments.
var callLine = regexp.MustCompile(`^\d+ +([a-z0-9_]+)\((.*)`)

// readProbe reads what strace -f -y wrote of a run on the store in dir.
func readProbe(name, dir string) (*probe, error) {
	p := &probe{counts: map[string]int{}, paths: map[string][]string{}}
	named := regexp.MustCompile(`["<](` + regexp.QuoteMeta(dir) + `[^">]*)[">]`)
	err := eachLine(name, func(line string) {
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			return
		}
		call, args := m[1], m[2]
		if slices.Contains(byAddress, call) {
			p.counts[call]++
			return
		}
		found := named.FindAllStringSubmatch(args, -1)
		if len(found) > 0 {
			p.counts[call]++
		}
		for _, f := range found {
			if !slices.Contains(p.paths[call], f[1]) {
				p.paths[call] = append(p.paths[call], f[1])
			}
		}
	})
	return p, err
}

func eachLine(name string, visit func(string)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		visit(lines.Text())
	}
	return lines.Err()
}

// tracing is the command line of strace, up to the program.
func tracing(out string, args ...string) []string {
	return append([]string{"strace", "-f", "-qq", "-y", "-o", out}, args...)
}

func probing(out string) []string {
	return tracing(out, "-e", "trace="+strings.Join(append(slices.Clone(byPath), byAddress...), ","))
}

// injecting makes the N-th call of a kind fail, or be the last.
func injecting(out string, p *probe, call string, f fault, n int) []string {
	when := fmt.Sprintf("when=%d", n)
	if !f.once {
		when += "+"
	}
	var args []string
	if !f.kills {
		// Stops at the calls that are traced and no others. At such a stop a signal
		// cannot be injected: it would be dropped.
		args = append(args, "--seccomp-bpf")
	}
	args = append(args, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:%s:%s", call, f.inject, when))
	for _, path := range p.paths[call] {
		args = append(args, "-P", path)
	}
	return tracing(out, args...)
}

// fired reports whether a call was broken: N counts calls of one thread.
func fired(out string) (bool, error) {
	yes := false
	err := eachLine(out, func(line string) {
		yes = yes || strings.Contains(line, "(INJECTED)") || strings.Contains(line, "killed by SIGKILL")
	})
	return yes, err
}

// usable says why strace cannot be used here, or nothing.
func usable(ctx context.Context, dir string) string {
	out, err := command(ctx, tracing(dir+"/try", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=99", "true")...)
	if err != nil {
		return strings.TrimSpace(fmt.Sprintf("strace does not work here: %v %s", err, out))
	}
	return ""
}
