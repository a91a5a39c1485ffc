package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/pocketmq/mq"
)

// maxPart is how much of a line goes into one message. Half the default limit
// of a body; source lines end long before.
const maxPart = 2 << 20

// sender shares the files out among goroutines, one producer each.
type sender struct {
	b     *mq.Broker
	files []file
	next  atomic.Int64 // index of the file nobody has taken yet
	lines atomic.Int64 // sent
	bytes atomic.Int64
	bar   *bar
	want  tally
}

// sendFiles sends every line and returns what it sent.
func sendFiles(ctx context.Context, b *mq.Broker, files []file, want tally, progress *bar) (tally, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &sender{b: b, files: files, want: want, bar: progress}
	errs := make([]error, max(2, runtime.GOMAXPROCS(0)))
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() {
			if errs[i] = s.runSender(ctx); errs[i] != nil {
				cancel() // the others need not go on
			}
		})
	}
	done.Wait()
	return tally{s.lines.Load(), s.bytes.Load()}, errors.Join(errs...)
}

func (s *sender) runSender(ctx context.Context) error {
	p, err := s.b.NewProducer(&mq.ProducerOptions{Group: "source-reader"})
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }() // it has nothing to say
	lines := bufio.NewReaderSize(nil, maxPart)
	for {
		i := s.next.Add(1) - 1
		if i >= int64(len(s.files)) {
			return nil
		}
		t, err := sendFile(ctx, p, s.files[i], lines)
		if err != nil {
			return err
		}
		s.bytes.Add(t.Bytes)
		s.bar.show("sent", s.lines.Add(t.Lines), s.want.Lines)
	}
}

// sendFile sends the lines of one file. The line in the reader's buffer is the
// body itself: a sent body may be overwritten as soon as Send has returned.
func sendFile(ctx context.Context, p *mq.Producer, f file, lines *bufio.Reader) (sent tally, err error) {
	in, err := os.Open(f.path)
	if err != nil {
		return sent, err
	}
	defer func() { _ = in.Close() }() // it is only read
	lines.Reset(in)
	m := &mq.Message{Topic: topic, Tag: f.tag, Keys: []string{f.name}}
	continued := false // the part before had no newline
	for {
		line, err := lines.ReadSlice('\n')
		m.Properties = nil
		switch {
		case err == nil:
			line = line[:len(line)-1]
		case errors.Is(err, bufio.ErrBufferFull):
			m.Properties = map[string]string{moreProperty: ""}
		case !errors.Is(err, io.EOF):
			return sent, err
		case len(line) == 0 && !continued:
			return sent, nil
		}
		m.Body = line
		if _, err := p.Send(ctx, m); err != nil {
			return sent, err
		}
		sent = sent.plus(tallyOf(m))
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		continued = m.Properties != nil
	}
}
