// Command rivals puts other stores that can be embedded in a Go program through
// the kill and the power cut that the lab puts PocketMQ through, so that they
// stand in the same table:
//
//	go run ./verify/rivals            10 kills and 10 cuts of each
//	go run ./verify/rivals -quick     1 of each
//
// Each run begins with an empty store, which is kinder than the lab: what was
// lost once cannot be lost again, and nothing has to survive two faults. What a
// rival loses is no failure of this command.
package main

import "github.com/pocketmq/mq/verify/lab"

func main() {
	childMain()
	lab.Main(tools())
}
