// Package mq is PocketMQ: RocketMQ's model inside one Go process.
package mq
