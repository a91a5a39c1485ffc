package mq

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// OnceKey names what a group is to do about a message, for ever: it is the same
// for each delivery of the message to the group, however often it is tried,
// delayed or sent again from the dead letters, after a reset, a crash and a
// power cut; and another for each group and each message. It is the key to keep
// in a database beside the effect of the message; see Once.
func OnceKey(group string, m *Message) string { return group + "/" + m.ID.String() }

// Ledger is a database in which a handler has its effect, and in which it marks
// that it has had it. T is what its transactions are known by: *sql.Tx, say.
// SQLLedger is that of database/sql.
type Ledger[T any] interface {
	// Transact runs do in a transaction, commits if it returns nil and otherwise
	// takes all of it back. It returns the error of do, or why the transaction
	// could not be begun or committed. It may run do again, if what it did before
	// was taken back.
	Transact(ctx context.Context, do func(tx T) error) error

	// Mark stores the key in the transaction and reports whether it is new. Of two
	// transactions that mark one key at the same time at most one may commit.
	Mark(ctx context.Context, tx T, key string) (first bool, err error)
}

// Once returns a handler that has an effect exactly once for each message: the
// effect and the mark that says so are one transaction. If the process ends
// before its commit there is neither and the message comes again; if it ends
// after it, and before the message is acknowledged, that comes again, the mark is
// found, and the handler returns nil without an effect.
//
// It holds for what effect does by tx, and for nothing else: a mail is sent as
// often as effect runs. If effect returns an error its work is taken back and the
// error is the handler's, so the message comes again as always.
//
// key tells what is the same; nil is OnceKey of the group. Where senders repeat
// beyond the window of their topic it should be what they call the message:
//
//	func(m *mq.Message) string { return group + "/" + m.DedupKey }
//
// Marks are to be kept for as long as a message may come again; see
// docs/idempotence.md. The handler may be called by pull and simple consumers as
// well, before they commit or acknowledge.
func Once[T any](group string, ledger Ledger[T], key func(*Message) string, effect func(ctx context.Context, tx T, m *Message) error) Handler {
	if key == nil {
		key = func(m *Message) string { return OnceKey(group, m) }
	}
	return func(ctx context.Context, m *Message) error {
		k := key(m)
		return ledger.Transact(ctx, func(tx T) error {
			first, err := ledger.Mark(ctx, tx, k)
			if err != nil {
				return fmt.Errorf("mq: mark %q: %w", k, err)
			}
			if !first {
				return nil
			}
			return effect(ctx, tx, m)
		})
	}
}

// SQLLedger is a Ledger of a database/sql database. The marks are rows of a table
// of the user's, whose key is unique:
//
//	CREATE TABLE done (key TEXT PRIMARY KEY, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)
type SQLLedger struct {
	DB *sql.DB

	// Insert stores a mark, its only parameter, and changes no row if it is there:
	// in SQLite "INSERT INTO done (key) VALUES (?) ON CONFLICT DO NOTHING", in
	// PostgreSQL the same with $1, in MySQL "INSERT IGNORE INTO done (key) …".
	Insert string

	// TxOptions of the transactions; nil is the driver's default. Any isolation
	// will do for the marks: uniqueness is not a matter of isolation.
	TxOptions *sql.TxOptions
}

// Transact implements Ledger.
func (l *SQLLedger) Transact(ctx context.Context, do func(*sql.Tx) error) (err error) {
	tx, err := l.DB.BeginTx(ctx, l.TxOptions)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done { // also if do panics
			if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
				err = errors.Join(err, undo)
			}
		}
	}()
	if err := do(tx); err != nil {
		return err
	}
	done = true
	return tx.Commit()
}

// Mark implements Ledger.
func (l *SQLLedger) Mark(ctx context.Context, tx *sql.Tx, key string) (first bool, err error) {
	result, err := tx.ExecContext(ctx, l.Insert, key)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	if err == nil && n > 1 {
		err = fmt.Errorf("%w: SQLLedger.Insert changed %d rows", ErrInvalidArgument, n)
	}
	return n == 1, err
}
