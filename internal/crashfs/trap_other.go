//go:build !linux && !darwin

package crashfs

// trap is memory of which a part cannot be touched; there is none here.
type trap struct{ open []byte }

func setTrap([]byte, int64) (*trap, []byte, bool) { return nil, nil, false }

func (t *trap) release() {}
