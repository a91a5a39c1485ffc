//go:build linux || darwin

package crashfs

import (
	"slices"
	"sync"
	"syscall"
)

// trap is memory of which a part cannot be touched: a store behind the end of
// open raises the same signal as one into a mapping whose page cannot be read.
//
//	|  not touched  |<--- open --->|  PROT_NONE ...  |
//	0               lead-len(open) lead              len(all)
type trap struct {
	all  []byte
	lead int
	open []byte
}

// traps are reused and never unmapped: a slice that somebody still holds must
// not become somebody else's memory.
var traps struct {
	sync.Mutex
	free []*trap
}

// setTrap returns n bytes of which the first len(content), given, can be used.
// It returns false where there is no such memory.
func setTrap(content []byte, n int64) (t *trap, buf []byte, ok bool) {
	page := syscall.Getpagesize()
	lead := (len(content) + page - 1) / page * page
	rest := (int(n) + page) / page * page
	if t = freeTrap(lead, rest); t == nil {
		all, err := syscall.Mmap(-1, 0, lead+rest, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			return nil, nil, false
		}
		t = &trap{all: all, lead: lead}
		if err := syscall.Mprotect(all[lead:], syscall.PROT_NONE); err != nil {
			return nil, nil, false
		}
	}
	from := t.lead - len(content)
	t.open = t.all[from:t.lead:t.lead]
	copy(t.open, content)
	return t, t.all[from : from+int(n) : from+int(n)], true
}

func freeTrap(lead, rest int) *trap {
	traps.Lock()
	defer traps.Unlock()
	i := slices.IndexFunc(traps.free, func(t *trap) bool { return t.lead >= lead && len(t.all)-t.lead >= rest })
	if i < 0 {
		return nil
	}
	t := traps.free[i]
	traps.free = slices.Delete(traps.free, i, i+1)
	return t
}

// release gives the memory back for the next fault.
func (t *trap) release() {
	traps.Lock()
	defer traps.Unlock()
	t.open = nil
	traps.free = append(traps.free, t)
}
