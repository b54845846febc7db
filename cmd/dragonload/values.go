package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// rateValue is a number of bytes, or bytes per second, with an optional suffix K, M
// or G (times 1024 each).
type rateValue int64

func (v *rateValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*v), 10)
}
func (*rateValue) Type() string { return "SIZE" }

func (v *rateValue) Set(s string) error {
	n, err := parseSize(s)
	if err != nil {
		return err
	}
	*v = rateValue(n)
	return nil
}

var errSize = errors.New("write a number of bytes, with K, M or G if you like, as in 500K or 1.5M")

func parseSize(s string) (int64, error) {
	number, unit := s, 1.0
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			number = s[:len(s)-1]
		}
	}
	n, err := parseDecimal(number)
	if err != nil || n*unit > 1<<60 {
		return 0, errSize
	}
	return int64(math.Round(n * unit)), nil
}

// parseDecimal reads digits with at most one point: no sign, exponent, hexadecimal
// or infinity, which strconv would take.
func parseDecimal(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// durationValue is a time: 20s, 10m, 1h30m, 7d, or a plain number of seconds.
type durationValue time.Duration

func (v *durationValue) String() string {
	d := time.Duration(*v)
	if d == 0 {
		return "0s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
func (*durationValue) Type() string { return "TIME" }

func (v *durationValue) Set(s string) error {
	d, err := parseDuration(s)
	if err != nil {
		return err
	}
	*v = durationValue(d)
	return nil
}

var errDuration = errors.New("write a time as in 20s, 10m or 1h30m; a plain number is seconds")

func parseDuration(s string) (time.Duration, error) {
	const most = 10 * 365 * 24 * time.Hour
	if n, err := parseDecimal(s); err == nil && n <= most.Seconds() {
		return time.Duration(n * float64(time.Second)), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := parseDecimal(days); err == nil && n <= most.Hours()/24 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > most {
		return 0, errDuration
	}
	return d, nil
}

// countValue is a whole number with bounds.
type countValue struct {
	n        *int
	min, max int
	typ      string // "N" where it is empty
}

func (v *countValue) String() string {
	if v.n == nil || *v.n == 0 {
		return ""
	}
	return strconv.Itoa(*v.n)
}
func (v *countValue) Type() string {
	if v.typ == "" {
		return "N"
	}
	return v.typ
}

func (v *countValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.min || n > v.max {
		return errors.New("write a whole number from " + strconv.Itoa(v.min) + " to " + strconv.Itoa(v.max))
	}
	*v.n = n
	return nil
}

// onlyValue takes one word alone: the flag is part of the contract, other values of
// it come with a later version.
type onlyValue struct{ only, typ string }

func (v *onlyValue) String() string { return v.only }
func (v *onlyValue) Type() string   { return v.typ }

func (v *onlyValue) Set(s string) error {
	if s != v.only {
		return errors.New("other values than " + v.only + " are not in this version yet")
	}
	return nil
}
