// Package api holds what the generated service packages below it share: the
// shape of an operation, an exception, a timestamp and a secret, as the AWS
// service models state them. It decides nothing and knows no HTTP.
package api

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Operation is one operation of a service model, bound to the Service
// interface S that implements it.
type Operation[S any] struct {
	Name   string   // as in IAM actions and SDKs: CreateMesh
	Method string   // HTTP method; empty: the operation is called by its target
	URI    string   // path template, labels in braces
	Errors []string // exception codes that the model lists

	// New returns a pointer to a zero input structure.
	New func() any
	// Call hands a decoded and validated input, as New made it, to the service.
	Call func(ctx context.Context, service S, in any) (any, error)
}

// Exception is an error that a service model names. Its message goes over the
// wire to the caller.
type Exception struct {
	Code    string // the model's shape name: NotFoundException
	Status  int    // HTTP status
	Message string
}

func (e *Exception) Error() string { return e.Code + ": " + e.Message }

// Exceptionf formats the message of an exception.
func Exceptionf(code string, status int, format string, args ...any) *Exception {
	return &Exception{Code: code, Status: status, Message: fmt.Sprintf(format, args...)}
}

// Timestamp travels as seconds since the Unix epoch with a fraction of
// milliseconds, as restJson1 has it.
type Timestamp struct{ time.Time }

// MarshalJSON writes epoch seconds with three decimals.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(t.UnixMilli())/1000, 'f', 3, 64), nil
}

// The years 1 and 9999 bound a Timestamp, in seconds since the Unix epoch.
const firstSecond, lastSecond = -62135596800, 253402300799

// UnmarshalJSON reads epoch seconds, to the millisecond.
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("timestamp %q is not a number of seconds", b)
	}
	if !(firstSecond <= seconds && seconds <= lastSecond) {
		return fmt.Errorf("timestamp %q is not within the years 1 to 9999", b)
	}
	t.Time = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return nil
}
