package commitlog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pocketmq/mq/commitlog"
)

// live works on the open log until its life is over.
func (c *crashRun) live() error {
	if c.rng.IntN(2) == 0 && !c.fs.Off() {
		c.fs.CutAt(1 + c.rng.Int64N(200))
	}
	if !c.faulty && c.rng.IntN(4) == 0 {
		c.injectFault()
	}
	ailing := 0 // steps since the log was poisoned
	for steps := 3 + c.rng.IntN(50); steps > 0; steps-- {
		err := c.act()
		settle()
		if err = errors.Join(err, c.failed, c.checkMarks()); err != nil {
			return err
		}
		if c.fs.Off() {
			return nil
		}
		if c.log.Err() != nil {
			if ailing++; ailing == 1 {
				c.stats.poisoned++
				c.note("poisoned: %v", c.log.Err())
			}
			if ailing > 4 {
				return nil
			}
		}
	}
	return nil
}

// act does one thing.
func (c *crashRun) act() error {
	switch n := c.rng.IntN(100); {
	case n < 55:
		return c.append(c.anyRoom(), c.sizes())
	case n < 65:
		return c.wait()
	case n < 72:
		return c.sendersWait()
	case n < 76:
		return c.waitAndAppend()
	case n < 81:
		return c.checkpoint()
	case n < 86:
		return c.drop()
	case n < 88:
		c.note("%s pass", commitlog.DefaultSyncEvery)
		time.Sleep(commitlog.DefaultSyncEvery + time.Millisecond)
		return nil
	case n < 94:
		return c.readSome()
	default:
		return c.scan()
	}
}

func (c *crashRun) anyRoom() commitlog.Room {
	return []commitlog.Room{commitlog.Wait, commitlog.Wait, commitlog.Try, commitlog.Reserved}[c.rng.IntN(4)]
}

// sizes returns the bodies of a frame: mostly small, now and then larger than a
// segment.
func (c *crashRun) sizes() []int {
	segment := int(c.opts.SegmentBytes)
	if n := c.upToAGhost(); n >= 0 && c.rng.IntN(3) == 0 {
		return []int{n}
	}
	switch n := c.rng.IntN(100); {
	case n < 50:
		return []int{c.rng.IntN(300)}
	case n < 65:
		return []int{c.rng.IntN(5000)}
	case n < 75:
		return []int{c.rng.IntN(segment / 2)}
	case n < 78:
		return []int{c.rng.IntN(3 * segment)}
	}
	sizes := make([]int, 2+c.rng.IntN(8))
	most := []int{10, 300, 2000, segment / 8}[c.rng.IntN(4)]
	for i := range sizes {
		sizes[i] = c.rng.IntN(most)
	}
	return sizes
}

// upToAGhost returns the body of a frame that ends where a lost frame began, -1
// if there is none near: what is left of that frame on the disk would go on from
// there, if it were not for the precautions against it.
func (c *crashRun) upToAGhost() int {
	least := c.log.Written() + crashHeader + testHead
	nearest := least + 64<<10
	for _, at := range c.ghosts {
		if at >= least {
			nearest = min(nearest, at)
		}
	}
	if nearest == least+64<<10 {
		return -1
	}
	return int(nearest - least)
}

// crashHeader is what a record is larger than its payload.
const crashHeader = 24

var errGiveUp = errors.New("the caller thought better of it")

// append appends a frame with one record per body.
func (c *crashRun) append(room commitlog.Room, sizes []int) error {
	var lay commitlog.Layout
	for _, n := range sizes {
		lay = lay.Add(testHead + n)
	}
	giveUpAt := -1
	if c.rng.IntN(20) == 0 {
		giveUpAt = c.rng.IntN(len(sizes) + 1)
	}
	poisoned := c.log.Err() != nil
	var frame crashFrame
	end, err := c.log.Append(context.Background(), room, lay, func(f *commitlog.Frame) error {
		for i, n := range sizes {
			if i == giveUpAt {
				return errGiveUp
			}
			c.nextID++
			body := crashBody(c.nextID, n)
			// Noted before it is stored, which may end in a fault.
			frame = append(frame, crashRecord{
				at: f.Position(), size: uint32(crashHeader + testHead + n), epoch: f.Epoch(), id: c.nextID, n: n,
			})
			dst, at, size := f.Next(testHead, body, commitlog.BodyHash(body))
			dst[0], dst[1], dst[2], dst[3] = testHead, 0, 0, 0
			binary.LittleEndian.PutUint64(dst[4:], c.nextID)
			if at != frame[i].at || size != frame[i].size {
				return fmt.Errorf("record of %d bytes at %d, not of %d at %d", size, at, frame[i].size, frame[i].at)
			}
		}
		if giveUpAt == len(sizes) {
			return errGiveUp
		}
		return nil
	})
	c.note("append %v: %d, %v", sizes, end, err)
	switch {
	case err == nil && poisoned:
		return errors.New("a poisoned log took a frame")
	case err == nil:
		return c.appended(frame, end)
	case errors.Is(err, errGiveUp):
		return nil
	case len(frame) == len(sizes) && errors.Is(err, commitlog.ErrPoisoned) && !poisoned:
		c.unsure = true
		end = frame[len(frame)-1].at + align8(commitlog.Position(frame[len(frame)-1].size))
		return errors.Join(c.excused(err), c.appended(frame, end))
	case room == commitlog.Try && errors.Is(err, commitlog.ErrBackpressure):
		return nil
	case c.limit && errors.Is(err, commitlog.ErrDiskFull):
		return nil
	}
	return c.excused(err)
}

func align8(n commitlog.Position) commitlog.Position { return (n + 7) &^ 7 }

// appended notes a frame, and that its names are new.
func (c *crashRun) appended(frame crashFrame, end commitlog.Position) error {
	for i := range frame {
		r := &frame[i]
		r.end = end
		name := crashName{r.at, r.epoch}
		if was, there := c.names[name]; there {
			return fmt.Errorf("record %d is named %+v, and so was %d", r.id, name, was)
		}
		c.names[name] = r.id
		if r.epoch != c.epoch {
			return fmt.Errorf("record %d has epoch %d in epoch %d", r.id, r.epoch, c.epoch)
		}
	}
	if n := len(c.frames); n > 0 && c.frames[n-1].end() > frame.at() {
		return fmt.Errorf("frame at %d overlaps the one that ends at %d", frame.at(), c.frames[n-1].end())
	}
	c.frames = append(c.frames, frame)
	c.stats.frames++
	return nil
}

// excused returns err unless something was told to fail.
func (c *crashRun) excused(err error) error {
	if err == nil || c.faulty || c.fs.Off() {
		return nil
	}
	return fmt.Errorf("nothing was told to fail: %w", err)
}

// wrongly returns an error if a wait for pos had a result that it must not have;
// poisoned and synced are from before.
func (c *crashRun) wrongly(err error, pos, synced commitlog.Position, poisoned bool) error {
	switch {
	case err == nil && pos > c.log.Synced():
		return fmt.Errorf("acknowledged %d, synced is %d", pos, c.log.Synced())
	case err == nil && poisoned && pos > synced:
		return fmt.Errorf("a poisoned log acknowledged %d", pos)
	case err != nil && pos <= synced:
		return fmt.Errorf("what was synced is refused: %w", err)
	case err != nil && !errors.Is(err, commitlog.ErrPoisoned):
		return fmt.Errorf("wait: %w", err)
	}
	return c.excused(err)
}

// anyEnd returns the end of a frame, more often of a late one.
func (c *crashRun) anyEnd() commitlog.Position {
	n := len(c.frames)
	if c.unsure {
		n-- // nobody was given this end
	}
	if n == 0 {
		return c.log.Written()
	}
	back := c.rng.IntN(min(n, 1+c.rng.IntN(n)))
	return c.frames[n-1-back].end()
}

func (c *crashRun) wait() error {
	pos, synced, poisoned := c.anyEnd(), c.log.Synced(), c.log.Err() != nil
	if c.rng.IntN(3) == 0 {
		pos = c.log.Written()
	}
	err := c.log.Wait(context.Background(), pos)
	c.note("wait %d: %v", pos, err)
	return c.wrongly(err, pos, synced, poisoned)
}

// sendersWait lets several goroutines wait at the same time: one leads.
func (c *crashRun) sendersWait() error {
	n := 2 + c.rng.IntN(4)
	for range n {
		if err := c.append(commitlog.Wait, []int{c.rng.IntN(1000)}); err != nil {
			return err
		}
	}
	settle()
	synced, poisoned := c.log.Synced(), c.log.Err() != nil
	errs := make([]error, n)
	var senders sync.WaitGroup
	for i := range n {
		pos, follows := c.anyEnd(), i > 0 && c.rng.IntN(2) == 0
		senders.Go(func() {
			wait := c.log.Wait
			if follows {
				wait = c.log.Follow
			}
			errs[i] = c.wrongly(wait(context.Background(), pos), pos, synced, poisoned)
		})
	}
	senders.Wait()
	c.note("%d senders waited", n)
	return errors.Join(errs...)
}

// waitAndAppend appends while the sync runs: just before it takes effect and
// just after, before its leader knows.
func (c *crashRun) waitAndAppend() error {
	if err := c.append(commitlog.Wait, []int{c.rng.IntN(1000)}); err != nil {
		return err
	}
	settle()
	c.during = func(bool) {
		if err := c.append(commitlog.Try, []int{c.rng.IntN(1000)}); err != nil {
			c.failed = err
		}
	}
	defer func() { c.during = nil }()
	return c.wait()
}

// checkpoint notes what a journal would: where replay begins, and what is synced
// before it says so.
func (c *crashRun) checkpoint() error {
	if c.pending {
		return nil
	}
	from, synced, poisoned := c.log.Written(), c.log.Synced(), c.log.Err() != nil
	err := c.log.Sync(context.Background())
	c.note("checkpoint at %d: %v", from, err)
	if err == nil {
		c.start = commitlog.Start{From: from, Synced: c.log.Synced(), Epoch: c.log.Epoch()}
	}
	return c.wrongly(err, from, synced, poisoned)
}

// drop drops segments below the last checkpoint.
func (c *crashRun) drop() error {
	if c.start.From <= c.log.Start() {
		return nil
	}
	pos := c.log.Start() + commitlog.Position(c.rng.Int64N(int64(c.start.From-c.log.Start())+1))
	if c.rng.IntN(2) == 0 {
		pos = c.start.From
	}
	if c.rng.IntN(4) == 0 {
		c.fs.CutAt(1 + c.rng.Int64N(8)) // or the power would hardly ever go here
	}
	pending := c.pending
	c.most, c.pending = max(c.most, pos), true
	err := c.log.DropBefore(context.Background(), pos)
	c.note("drop before %d: start %d, %v", pos, c.log.Start(), err)
	if err != nil {
		if c.limit && errors.Is(err, commitlog.ErrDiskFull) {
			return nil
		}
		return c.excused(err)
	}
	if c.log.Start() > pos || c.log.Start() < c.least {
		return fmt.Errorf("dropped before %d, starts at %d", pos, c.log.Start())
	}
	c.least = c.log.Start()
	if c.pending = pending; !pending { // what failed before is finished by the next opening
		c.most = c.least
	}
	return nil
}

// readable are the frames that the log is to have.
func (c *crashRun) readable() []crashFrame {
	frames := c.frames
	if c.unsure {
		frames = frames[:len(frames)-1]
	}
	for len(frames) > 0 && frames[0].at() < c.log.Start() {
		frames = frames[1:]
	}
	return frames
}

func (c *crashRun) readSome() error {
	frames := c.readable()
	if len(frames) == 0 {
		return nil
	}
	var refs []commitlog.Ref
	var want []crashRecord
	for range 1 + c.rng.IntN(10) {
		f := frames[c.rng.IntN(len(frames))]
		r := f[c.rng.IntN(len(f))]
		ref := commitlog.Ref{Position: r.at, Size: r.size}
		if c.rng.IntN(2) == 0 {
			ref.Size = 0
		}
		refs, want = append(refs, ref), append(want, r)
	}
	var wrong error
	c.log.Read(refs, func(i int, r commitlog.Record, err error) bool {
		if err != nil {
			wrong = errors.Join(wrong, c.excused(err))
			return true
		}
		got, err := recordOf(r)
		if got.end = want[i].end; err == nil && got != want[i] { // Read does not see the frame
			err = fmt.Errorf("read %+v, written was %+v", got, want[i])
		}
		wrong = errors.Join(wrong, err)
		return true
	})
	return wrong
}

func (c *crashRun) scan() error {
	var got, want []crashRecord
	for _, f := range c.readable() {
		want = append(want, f...)
	}
	var wrong error
	err := c.log.Scan(c.log.Start(), c.log.Written(), func(r commitlog.Record) error {
		one, err := recordOf(r)
		wrong = errors.Join(wrong, err)
		got = append(got, one)
		return nil
	})
	if err != nil {
		return errors.Join(wrong, c.excused(err))
	}
	if len(got) != len(want) {
		return errors.Join(wrong, fmt.Errorf("scanned %d records of %d", len(got), len(want)))
	}
	for i := range got {
		if got[i] != want[i] {
			return errors.Join(wrong, fmt.Errorf("scanned %+v, written was %+v", got[i], want[i]))
		}
	}
	return wrong
}

// checkMarks looks at the marks: they only advance, and what synced says is
// taken at its word.
func (c *crashRun) checkMarks() error {
	synced, written := c.log.Synced(), c.log.Written()
	if synced < c.marks[0] || written < c.marks[1] || synced > written {
		return fmt.Errorf("marks went from %v to [%d %d]", c.marks, synced, written)
	}
	c.marks = [2]commitlog.Position{synced, written}
	c.acked = max(c.acked, synced)
	return nil
}

// endLife ends the life of the log in one of four ways.
func (c *crashRun) endLife(failed bool) error {
	l := c.log
	c.log, c.during = nil, nil
	how := c.rng.IntN(10)
	switch {
	case failed || c.fs.Off() || how < 4:
		c.powerCut()
		_ = l.Close() // its goroutines end; there is nothing left to close
		return nil
	case how < 6:
		c.kill()
		_ = l.Close()
		return nil
	}
	written, poisoned := l.Written(), l.Err() != nil
	err := l.Close()
	c.note("close at %d: %v", written, err)
	c.stats.closes++
	if c.fs.Off() {
		c.powerCut()
		return nil
	}
	if err == nil {
		if poisoned {
			return errors.New("a poisoned log was closed without an error")
		}
		c.acked = max(c.acked, written)
		if !c.pending {
			c.start = commitlog.Start{From: written, Synced: written, Epoch: l.Epoch(), Clean: true}
			c.closed, c.untouched = true, true
		}
	} else if err := c.excused(err); err != nil {
		return err
	}
	c.fs.Heal()
	c.fs.CutAt(0)
	if c.rng.IntN(2) == 0 {
		c.powerCut()
	}
	return nil
}
