package consumequeue

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pocketmq/mq/internal/coord"
)

// maxNamePart bounds the part of a folder name that stands for the topic. Every
// system allows names of 255 bytes; "@" and a 19-digit id have to fit behind it.
const maxNamePart = 200

// Dir returns the name of the folder of a topic: the name, escaped so that it
// is legal on every system, "@" and the id. The id alone makes it unique, also
// where the file system ignores case; the name is there for people, and cut if
// it is very long.
func Dir(topic string, id coord.TopicID) string {
	var b strings.Builder
	for _, c := range []byte(topic) {
		if b.Len() >= maxNamePart {
			break
		}
		if plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteByte('@')
	b.WriteString(strconv.FormatInt(int64(id), 10))
	return b.String()
}

// plain reports whether a byte may stand for itself in a name. Dots may not:
// "." and ".." are taken, and Windows drops them at the end.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// isDir reports whether a name can have come from Dir. What cannot is somebody
// else's and left alone.
func isDir(name string) bool {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return false
	}
	id, err := strconv.ParseInt(name[at+1:], 10, 64)
	return err == nil && id >= 0
}

// fileName returns the name of the file whose first entry has offset base.
func fileName(base coord.Offset) string { return fmt.Sprintf("%020d", base) }

// parseFileName is the inverse of fileName.
func parseFileName(name string) (base coord.Offset, ok bool) {
	if len(name) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(name, 10, 63)
	if err != nil || n%FileEntries != 0 {
		return 0, false
	}
	return coord.Offset(n), true
}
