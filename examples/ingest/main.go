// Command ingest puts a real load through the queue and checks every byte of
// the result: each line of each .go file under a directory becomes a message,
// and four consumers have to come to the same counts as a program that reads
// the files itself.
//
//	go run ./examples/ingest                 the Go distribution's own source
//	go run ./examples/ingest ~/src/project   another directory
//	go run ./examples/ingest -quick          only src/net, in a second or two
//
// A message carries its top-level package as tag and its file as key. A
// clustering group of two members counts lines and bytes per tag together, two
// broadcasting members each count all of them, and when they are done a pull
// consumer reads one tag again from the start. The program prints both sides
// and the rates, and exits with 1 on any difference.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/pocketmq/mq"
)

const topic = "SourceLines"

type options struct {
	source string // directory with the .go files
	store  string // empty: a temporary one, removed at the end
	tag    string // that the pull consumer reads again; empty: the one with most lines
	json   bool
	quick  bool
}

func main() {
	var o options
	flag.StringVar(&o.store, "dir", "", "`directory` of the store; it is kept (default: a temporary one)")
	flag.StringVar(&o.tag, "tag", "", "`tag` to read again (default: the one with most lines)")
	flag.BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	flag.BoolVar(&o.quick, "quick", false, "only a small part of the source: src/net")
	flag.Parse()
	if flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	o.source = flag.Arg(0)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout, newBar(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		stop()
		os.Exit(1)
	}
}

// errDiffers is the verdict that the queue and the files do not agree.
var errDiffers = errors.New("the queue's counts differ from the files'")

func run(ctx context.Context, o options, out io.Writer, progress *bar) (err error) {
	source, err := sourceDir(o)
	if err != nil {
		return err
	}
	store, remove, err := storeDir(o.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	files, err := findFiles(source)
	if err != nil {
		return err
	}
	r := &report{Source: source, Files: len(files)}
	began := time.Now()
	if r.truth, err = countFiles(ctx, files); err != nil {
		return err
	}
	r.Direct = rateOf(r.truth.total(), time.Since(began))

	if err := throughQueue(ctx, store, o.tag, files, r, progress); err != nil {
		return err
	}
	r.compare()
	if o.json {
		err = r.writeJSON(out)
	} else {
		err = r.writeText(out)
	}
	if err == nil && !r.Equal {
		err = errDiffers
	}
	return err
}

// throughQueue opens the store and runs the job in it: consumers first, so that
// they work while the files are sent.
func throughQueue(ctx context.Context, store, tag string, files []file, r *report, progress *bar) (err error) {
	b, err := mq.Open(store, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	defer progress.clear()
	// Written: a message counts once it is in the page cache, where it survives
	// kill -9, and a power cut half a second later. The files are still there,
	// so after a power cut this job would be run again anyway: waiting for the
	// disk two million times would buy nothing.
	if err := b.CreateTopic(topic, &mq.TopicConfig{Queues: 4, Durability: mq.Written}); err != nil {
		return fmt.Errorf("the store has to be a fresh one: %w", err)
	}
	consumers, err := startConsumers(b)
	if err != nil {
		return err
	}
	began := time.Now()
	sent, err := sendFiles(ctx, b, files, r.truth.total(), progress)
	if err != nil {
		return err
	}
	r.Sent = rateOf(sent, time.Since(began))
	if err := consumers.wait(ctx, b, progress); err != nil {
		return err
	}
	r.Consumed = rateOf(sent, time.Since(began))
	r.clustering, r.broadcast = consumers.results()

	if tag == "" {
		tag = r.truth.largest()
	}
	r.Tag = tag
	r.Reread, err = readAgain(ctx, b, tag)
	return err
}

// sourceDir is the directory whose files are sent.
func sourceDir(o options) (string, error) {
	if o.source != "" {
		return filepath.Abs(o.source)
	}
	// A program that was built elsewhere does not know where Go is now.
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its GOROOT (or name a directory): %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src")
	if o.quick {
		dir = filepath.Join(dir, "net")
	}
	return dir, nil
}

func storeDir(dir string) (store string, remove func() error, err error) {
	if dir != "" {
		return dir, func() error { return nil }, nil
	}
	dir, err = os.MkdirTemp("", "pocketmq-ingest-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}
