module github.com/pocketmq/mq/verify

go 1.26.0

replace github.com/pocketmq/mq => ../
