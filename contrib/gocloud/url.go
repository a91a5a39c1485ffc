package mqpubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gocloud.dev/pubsub"

	"github.com/pocketmq/mq"
)

// The schemes that pubsub.OpenTopic and pubsub.OpenSubscription know when this
// package is linked in.
const (
	Scheme    = "pocketmq"     // a store in a directory
	MemScheme = "pocketmq+mem" // one in memory
)

// ErrURL says that a URL cannot be opened. The message says what is wrong with
// it.
var ErrURL = errors.New("mqpubsub: invalid URL")

func init() {
	o := new(URLOpener)
	for _, scheme := range []string{Scheme, MemScheme} {
		pubsub.DefaultURLMux().RegisterTopic(scheme, o)
		pubsub.DefaultURLMux().RegisterSubscription(scheme, o)
	}
}

// URLOpener opens topics and subscriptions by URL. The location is the store, the
// query what is in it:
//
//	pocketmq:///var/lib/shop?topic=OrderTopic                    topic
//	pocketmq:///var/lib/shop?topic=OrderTopic&group=OrderGroup   subscription
//	pocketmq://./shop?topic=OrderTopic                           relative directory
//	pocketmq+mem://shop?topic=OrderTopic                         in memory, by a name
//	pocketmq:?topic=OrderTopic                                   of the opener's Broker
//
// URLs of one store share a broker. One in a directory is opened with the first of
// its topics and subscriptions, and closed with the last one that is shut down. One
// in memory stays until Close, or the end of the process.
//
// Query parameters, of which each may stand once:
//
//   - topic: required.
//   - group: of subscriptions, required.
//   - key: of topics, TopicOptions.KeyName.
//   - tags: of subscriptions, mq.TagExpr.
//   - ordered: of subscriptions, true or false.
//   - from: of subscriptions, earliest or latest.
//   - ackdeadline, nackdelay: of subscriptions, as for time.ParseDuration.
//
// Anything else, and a value that cannot be read, is ErrURL.
type URLOpener struct {
	// Broker, if set, is that of all URLs, which then must not name another store.
	Broker *mq.Broker

	// Options for the brokers that are opened. Nil is the defaults.
	Options *mq.Options

	// TopicOptions and SubscriptionOptions apply where a URL says nothing.
	TopicOptions        TopicOptions
	SubscriptionOptions SubscriptionOptions

	storesMu sync.Mutex
	stores   map[string]*store // by scheme and location
}

// store is an open broker and how many topics and subscriptions it has.
type store struct {
	broker *mq.Broker
	users  int
}

// OpenTopicURL implements pubsub.TopicURLOpener.
func (o *URLOpener) OpenTopicURL(_ context.Context, u *url.URL) (*pubsub.Topic, error) {
	q := query{values: u.Query()}
	options := o.TopicOptions
	name := q.required("topic")
	q.parse("key", func(s string) error { options.KeyName = s; return nil })
	if err := q.finish(); err != nil {
		return nil, fmt.Errorf("%w: topic %v: %w", ErrURL, u, err)
	}
	b, release, err := o.acquire(u)
	if err != nil {
		return nil, err
	}
	options.release = release
	t, err := OpenTopic(b, name, &options)
	if err != nil {
		return nil, fmt.Errorf("mqpubsub: open topic %v: %w", u, errors.Join(err, release()))
	}
	return t, nil
}

// OpenSubscriptionURL implements pubsub.SubscriptionURLOpener.
func (o *URLOpener) OpenSubscriptionURL(_ context.Context, u *url.URL) (*pubsub.Subscription, error) {
	q := query{values: u.Query()}
	options := o.SubscriptionOptions
	topic, group := q.required("topic"), q.required("group")
	q.parse("tags", func(s string) error { options.Filter = mq.TagExpr(s); return nil })
	q.parse("ordered", func(s string) (err error) { options.Ordered, err = strconv.ParseBool(s); return })
	q.parse("from", func(s string) (err error) { options.From, err = whence(s); return })
	q.parse("ackdeadline", func(s string) (err error) { options.AckDeadline, err = time.ParseDuration(s); return })
	q.parse("nackdelay", func(s string) (err error) { options.NackDelay, err = time.ParseDuration(s); return })
	if err := q.finish(); err != nil {
		return nil, fmt.Errorf("%w: subscription %v: %w", ErrURL, u, err)
	}
	b, release, err := o.acquire(u)
	if err != nil {
		return nil, err
	}
	options.release = release
	s, err := OpenSubscription(b, group, topic, &options)
	if err != nil {
		return nil, fmt.Errorf("mqpubsub: open subscription %v: %w", u, errors.Join(err, release()))
	}
	return s, nil
}

// Close closes the brokers that the opener opened and that are still open, for
// whoever uses them too. The opener's own Broker stays open.
func (o *URLOpener) Close() error {
	o.storesMu.Lock()
	defer o.storesMu.Unlock()
	var errs []error
	for _, s := range o.stores {
		errs = append(errs, s.broker.Close())
	}
	clear(o.stores)
	return errors.Join(errs...)
}

// acquire returns the broker that the URL names, opened if need be, and what gives
// it back.
func (o *URLOpener) acquire(u *url.URL) (b *mq.Broker, release func() error, err error) {
	key, dir, err := o.locate(u)
	if err != nil {
		return nil, nil, err
	}
	if key == "" {
		return o.Broker, func() error { return nil }, nil
	}
	o.storesMu.Lock()
	defer o.storesMu.Unlock()
	s := o.stores[key]
	if s == nil {
		s = &store{}
		if dir == "" {
			s.users++ // stays, or what it holds would go with the last topic
			s.broker, err = mq.OpenMemory(o.Options)
		} else {
			s.broker, err = mq.Open(dir, o.Options)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("mqpubsub: open %v: %w", u, err)
		}
		if o.stores == nil {
			o.stores = map[string]*store{}
		}
		o.stores[key] = s
	}
	s.users++
	return s.broker, func() error { return o.release(key, s) }, nil
}

// release gives a store back. The last one closes it, under the lock: whoever
// opens that directory next finds it free.
func (o *URLOpener) release(key string, s *store) error {
	o.storesMu.Lock()
	defer o.storesMu.Unlock()
	s.users--
	if s.users > 0 || o.stores[key] != s {
		return nil
	}
	delete(o.stores, key)
	return s.broker.Close()
}

// locate returns under which key the store of a URL is shared, and its directory,
// empty for one in memory. An empty key is the opener's own Broker.
func (o *URLOpener) locate(u *url.URL) (key, dir string, err error) {
	name := filepath.Join(u.Host, filepath.FromSlash(u.Path))
	if p := strings.TrimPrefix(u.Path, "/"); u.Host == "" && filepath.VolumeName(p) != "" {
		name = filepath.FromSlash(p) // pocketmq:///C:/shop
	}
	switch {
	case u.User != nil || u.Port() != "" || u.Opaque != "" || u.Fragment != "":
		return "", "", fmt.Errorf("%w: %v: it has more than a location and a query", ErrURL, u)
	case o.Broker != nil && name != "":
		return "", "", fmt.Errorf("%w: %v: the opener has a broker, and the URL names %q", ErrURL, u, name)
	case o.Broker != nil:
		return "", "", nil
	case name == "":
		return "", "", fmt.Errorf("%w: %v: it names no store", ErrURL, u)
	case strings.HasSuffix(u.Scheme, MemScheme): // or pubsub+pocketmq+mem
		return MemScheme + ":" + name, "", nil
	}
	dir, err = filepath.Abs(name)
	if err != nil {
		return "", "", fmt.Errorf("%w: %v: %w", ErrURL, u, err)
	}
	return Scheme + ":" + dir, dir, nil
}

// query reads the parameters of a URL and takes away what it has read. Its first
// error stays.
type query struct {
	values url.Values
	err    error
}

func (q *query) required(name string) (value string) {
	q.parse(name, func(s string) error { value = s; return nil })
	if value == "" && q.err == nil {
		q.err = fmt.Errorf("parameter %q is missing", name)
	}
	return value
}

// parse hands the value of a parameter to f, if it is there.
func (q *query) parse(name string, f func(string) error) {
	got, ok := q.values[name]
	delete(q.values, name)
	switch {
	case !ok || q.err != nil:
	case len(got) > 1:
		q.err = fmt.Errorf("parameter %q stands %d times", name, len(got))
	default:
		if err := f(got[0]); err != nil {
			q.err = fmt.Errorf("parameter %q: %w", name, err)
		}
	}
}

// finish returns the error, which may be that there is a parameter nobody read.
func (q *query) finish() error {
	if q.err == nil && len(q.values) > 0 {
		q.err = fmt.Errorf("unknown parameter %q", slices.Min(slices.Collect(maps.Keys(q.values))))
	}
	return q.err
}

func whence(s string) (mq.Whence, error) {
	switch s {
	case "earliest":
		return mq.Earliest, nil
	case "latest":
		return mq.Latest, nil
	}
	return mq.Whence{}, fmt.Errorf("%q is neither earliest nor latest", s)
}
