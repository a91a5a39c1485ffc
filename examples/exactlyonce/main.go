// Command exactlyonce pays orders out of an account in SQLite, is killed at every
// single step, and each order is paid exactly once.
//
//	go run ./examples/exactlyonce          5 orders
//	go run ./examples/exactlyonce -quick   2 orders
//
// It starts itself as a child that sends the orders, consumes them and pays
// them, and counts its steps on the way: before and after each send, at the
// delivery, when the message is marked in the database's transaction, when it is
// paid but not committed, when it is committed but not acknowledged, and so on.
// For each number there is, in a new store and a new database, one child kills
// itself (SIGKILL) at that step, and another one does everything again: it does
// not know what the first had done. Then the account is looked at.
//
// Two things make it come out. The orders have a DedupKey, so that sending them
// again stores nothing. The handler is made by mq.Once, so that paying and the
// mark that says so are one transaction. With -naive the handler just pays, and
// the program shows where that goes wrong.
//
// It exits with 1 if it comes out otherwise.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/pocketmq/mq"
)

const (
	topic    = "OrderTopic"
	group    = "billing"
	price    = 7
	patience = 10 * time.Minute // for everything

	failed = 1 // exit status; a child that is killed has another one
)

func main() {
	quick := flag.Bool("quick", false, "fewer orders")
	naive := flag.Bool("naive", false, "pay without a mark, and expect that to go wrong")
	child := flag.String("child", "", "be the child, in this `directory` (for the program itself)")
	step := flag.Int("step", 0, "the child's last step; 0: it comes to its end")
	flag.Parse()

	orders := 5
	if *quick {
		orders = 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if *child != "" {
		w := &work{dir: *child, orders: orders, naive: *naive, last: *step}
		err = w.run(ctx)
	} else {
		err = everyStep(ctx, orders, *naive)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "exactlyonce:", err)
		cancel()
		os.Exit(failed)
	}
}

// everyStep kills a child at each step there is, has another one finish, and
// looks at the account.
func everyStep(ctx context.Context, orders int, naive bool) (err error) {
	dir, err := os.MkdirTemp("", "pocketmq-exactlyonce-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var wrong []string
	kills := 0
	for step := 1; ; step++ {
		at := filepath.Join(dir, fmt.Sprint(step))
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		said, killed, err := start(ctx, at, step, orders, naive)
		if err != nil {
			return err
		}
		if killed {
			kills++
			if _, killed, err = start(ctx, at, 0, orders, naive); err != nil || killed {
				return fmt.Errorf("the second child: killed %v, %w", killed, err)
			}
		}
		paid, err := account(ctx, at)
		if err != nil {
			return err
		}
		if verdict := judge(paid, orders); verdict != "" {
			wrong = append(wrong, fmt.Sprintf("killed at %s: %s", said, verdict))
		}
		if err := os.RemoveAll(at); err != nil {
			return err
		}
		if !killed && said == "" { // there is no such step
			break
		}
	}
	return conclude(kills, orders, naive, wrong)
}

func conclude(kills, orders int, naive bool, wrong []string) error {
	for _, w := range wrong {
		fmt.Println(w)
	}
	switch {
	case kills < 7*orders:
		return fmt.Errorf("only %d kills: a step is missing", kills)
	case naive && len(wrong) == 0:
		return errors.New("without marks nothing went wrong: the kills miss what they are for")
	case !naive && len(wrong) > 0:
		return fmt.Errorf("%d of %d kills left another account", len(wrong), kills)
	}
	fmt.Printf("%d kills, one at each step of %d orders: %d left each order paid once\n", kills, orders, kills-len(wrong))
	return nil
}

// start runs a child to its end and returns what it said last, and whether it
// was killed.
func start(ctx context.Context, dir string, step, orders int, naive bool) (said string, killed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", false, err
	}
	args := []string{"-child", dir, "-step", fmt.Sprint(step), fmt.Sprintf("-quick=%v", orders == 2), fmt.Sprintf("-naive=%v", naive)}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != failed && ctx.Err() == nil {
		return strings.TrimSpace(string(out)), true, nil
	}
	return "", false, err
}

// account reads what was paid, order by order.
func account(ctx context.Context, dir string) (paid map[string]int, err error) {
	db, err := openDB(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, "SELECT name, paid FROM orders")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	paid = map[string]int{}
	for rows.Next() {
		var name string
		var sum int
		if err := rows.Scan(&name, &sum); err != nil {
			return nil, err
		}
		paid[name] = sum
	}
	return paid, rows.Err()
}

// judge says what is wrong with the account, if anything is.
func judge(paid map[string]int, orders int) string {
	var wrong []string
	for i := range orders {
		if sum := paid[orderName(i)]; sum != price {
			wrong = append(wrong, fmt.Sprintf("%s paid %d times", orderName(i), sum/price))
		}
	}
	if len(paid) != orders {
		wrong = append(wrong, fmt.Sprintf("%d orders", len(paid)))
	}
	slices.Sort(wrong)
	return strings.Join(wrong, ", ")
}

func orderName(i int) string { return fmt.Sprintf("order-%d", i) }

func openDB(ctx context.Context, dir string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "shop.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS orders (name TEXT PRIMARY KEY, paid INTEGER NOT NULL);
		CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openStore opens the queue, and makes the topic if it is not there.
func openStore(dir string) (*mq.Broker, error) {
	b, err := mq.Open(filepath.Join(dir, "queue"), nil)
	if err != nil {
		return nil, err
	}
	err = b.CreateTopic(topic, &mq.TopicConfig{Queues: 1, Dedup: mq.DedupWindow{For: time.Hour}})
	if err != nil && !errors.Is(err, mq.ErrTopicExists) {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}
