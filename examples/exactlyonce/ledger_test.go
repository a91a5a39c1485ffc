package main

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/pocketmq/mq"
)

func count(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSQLLedger: mark and effect are both there or neither, whatever goes wrong.
func TestSQLLedger(t *testing.T) {
	db, err := openDB(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ledger := &mq.SQLLedger{DB: db, Insert: "INSERT INTO done (key) VALUES (?) ON CONFLICT DO NOTHING"}
	bad := errors.New("not this time")
	var then func() error
	h := mq.Once("G", ledger, nil, func(ctx context.Context, tx *sql.Tx, _ *mq.Message) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES ('o', 1) ON CONFLICT (name) DO UPDATE SET paid = paid + 1"); err != nil {
			return err
		}
		return then()
	})
	m := &mq.Message{}
	then = func() error { return bad }
	if err := h(t.Context(), m); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	then = func() error { panic("as well") }
	func() {
		defer func() { _ = recover() }()
		_ = h(t.Context(), m)
	}()
	if count(t, db, "done")+count(t, db, "orders") != 0 {
		t.Fatal("something is left of what failed")
	}
	then = func() error { return nil }
	for range 3 {
		if err := h(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if count(t, db, "done") != 1 || count(t, db, "orders") != 1 {
		t.Fatal("want one mark and one effect")
	}
	var paid int
	if err := db.QueryRowContext(t.Context(), "SELECT paid FROM orders").Scan(&paid); err != nil || paid != 1 {
		t.Fatal(paid, err)
	}
	wrong := &mq.SQLLedger{DB: db, Insert: "INSERT INTO nowhere (key) VALUES (?)"}
	if err := mq.Once("G", wrong, nil, func(context.Context, *sql.Tx, *mq.Message) error { t.Error("ran"); return nil })(t.Context(), m); err == nil {
		t.Fatal("want an error: there is no such table")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h(ended, m); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
