package pocketmq

import "strings"

// EscapeName makes a name that PocketMQ accepts (letters, digits, %, |, _ and -)
// of any name: other bytes become %XX, as in a URL. Watermill's CQRS names topics
// and handlers like "events.OrderPlaced", which is "events%2EOrderPlaced" here.
// Different names stay different, and what PocketMQ accepts stays as it is,
// unless it looks escaped already ("100%25" is "100%2525").
func EscapeName(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if plain(c) && !escaped(name[i:]) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("%|_-", c) >= 0
}

// escaped reports whether s begins with what EscapeName makes of a byte.
func escaped(s string) bool {
	return len(s) > 2 && s[0] == '%' && upperHex(s[1]) && upperHex(s[2])
}

func upperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }
