//go:build !linux

package origin

import (
	"context"
	"net"
	"syscall"
	"time"
)

const canUnlock = false

func setSmallBuffer(context.Context, string, string, syscall.RawConn) error { return nil }

func unlock(*net.TCPConn) {}

func roundTrip(*net.TCPConn) time.Duration { return 0 }
