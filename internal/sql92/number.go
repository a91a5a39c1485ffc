package sql92

import (
	"cmp"
	"math"
	"strconv"
	"unsafe"
)

// number reads text as a number: an integer if it is one and fits 64 bits, else
// a float. It allocates nothing, whatever the text: what strconv would refuse
// does not reach it. Numbers of 1e308 and more are none.
func number(text []byte) value {
	if i, ok := integer(text); ok {
		return value{kind: whole, whole: i}
	}
	if !decimal(text) {
		return value{}
	}
	// The string is gone when ParseFloat returns, and no error keeps a part of it:
	// what can be refused was refused above.
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64)
	if err != nil {
		return value{}
	}
	return value{kind: float, float: f}
}

// integer reads an optional sign and digits.
func integer(text []byte) (i int64, ok bool) {
	negative := false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		negative = text[0] == '-'
		text = text[1:]
	}
	if len(text) == 0 {
		return 0, false
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	n := uint64(0)
	for _, c := range text {
		d := uint64(c - '0')
		if !digit(c) || n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	if negative {
		return int64(-n), true
	}
	return int64(n), true
}

// decimal reports whether text is an optional sign, digits with a point among
// or beside them or not, and an exponent or not, and less than 1e308.
func decimal(text []byte) bool {
	i := 0
	sign := func() (negative bool) {
		if i < len(text) && (text[i] == '-' || text[i] == '+') {
			negative = text[i] == '-'
			i++
		}
		return negative
	}
	sign()
	// magnitude is how many digits stand in front of the point, leading zeros
	// not counted; if there are none, less one for each zero behind it.
	digits, magnitude, significant, point := 0, 0, false, false
	for ; i < len(text) && (digit(text[i]) || text[i] == '.' && !point); i++ {
		if text[i] == '.' {
			point = true
			continue
		}
		digits++
		significant = significant || text[i] != '0'
		switch {
		case significant && !point:
			magnitude++
		case !significant && point:
			magnitude--
		}
	}
	if digits == 0 {
		return false
	}
	exponent := 0
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		negative, begin := sign(), i
		for ; i < len(text) && digit(text[i]); i++ {
			exponent = min(exponent*10+int(text[i]-'0'), 1<<20) // beyond all that a value can have
		}
		if i == begin {
			return false
		}
		if negative {
			exponent = -exponent
		}
	}
	return i == len(text) && (!significant || magnitude+exponent <= 308)
}

// compare orders two numbers exactly: no integer is rounded to be compared.
func compare(a, b value) int {
	switch {
	case a.kind == whole && b.kind == whole:
		return cmp.Compare(a.whole, b.whole)
	case a.kind == whole:
		return compareMixed(a.whole, b.float)
	case b.kind == whole:
		return -compareMixed(b.whole, a.float)
	}
	return cmp.Compare(a.float, b.float)
}

func compareMixed(i int64, f float64) int {
	switch {
	case f >= 1<<63:
		return -1
	case f < -1<<63:
		return 1
	}
	below := math.Floor(f)
	if c := cmp.Compare(i, int64(below)); c != 0 || below == f {
		return c
	}
	return -1 // f lies above the integer that i is
}
