// Command lab breaks what a store stands on, and says what became of what was
// acknowledged. It is run from the root of the repository:
//
//	go run ./verify/cmd/lab               every tool, in full
//	go run ./verify/cmd/lab -quick        a sample of each, under two minutes
//	go run ./verify/cmd/lab kill ext4     only these
//	go run ./verify/cmd/lab -list         what there is
//
// It exits with 1 if a promise was broken. What needs root, strace or a file
// system's tools says so and is skipped where they are not to be had.
package main

import (
	"github.com/pocketmq/mq/verify/beside"
	"github.com/pocketmq/mq/verify/cut"
	"github.com/pocketmq/mq/verify/disk"
	"github.com/pocketmq/mq/verify/kill"
	"github.com/pocketmq/mq/verify/lab"
	"github.com/pocketmq/mq/verify/syscalls"
	"github.com/pocketmq/mq/verify/workload"
)

// tools are the rows of the table, in its order.
var tools = []lab.Tool{
	kill.Tool,
	cut.Ext4,
	cut.XFS,
	syscalls.Tool,
	disk.Full,
	disk.Foreign,
	beside.Crash,
	beside.Power,
	beside.Mutilate,
	beside.Soak,
	// A module of its own: what others lose stands beside what we do not.
	{
		Name: "rivals", About: "the same kill and the same cut for JetStream and kfake",
		Run: lab.Command("verify/rivals", "."), FullOnly: true,
	},
}

func main() {
	workload.Main()
	lab.Main(tools)
}
