package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Date is a day or a moment as a source gives it. The zero Date is none.
type Date struct {
	moment time.Time
	day    bool
}

// ParseDate reads "2006-01-02" or RFC 3339; "" is none.
func ParseDate(s string) (Date, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Date{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return Date{moment: t, day: true}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a date like 2026-03-01 or 2026-03-01T08:00:00Z", printable(s))
	}
	return Date{moment: t}, nil
}

// IsZero reports whether there is no date.
func (d Date) IsZero() bool { return d == Date{} }

// First is the first moment of the day in zone, or the moment itself.
func (d Date) First(zone *time.Location) time.Time {
	if !d.day {
		return d.moment
	}
	return time.Date(d.moment.Year(), d.moment.Month(), d.moment.Day(), 0, 0, 0, 0, zone)
}

// Last is the last moment of the day in zone, or the moment itself: a last day
// of work counts until midnight where the client is. Days of 23 and 25 hours
// end at their midnight.
func (d Date) Last(zone *time.Location) time.Time {
	if !d.day {
		return d.moment
	}
	return time.Date(d.moment.Year(), d.moment.Month(), d.moment.Day()+1, 0, 0, 0, 0, zone).Add(-time.Nanosecond)
}

func (d Date) String() string {
	switch {
	case d.IsZero():
		return ""
	case d.day:
		return d.moment.Format(time.DateOnly)
	}
	return d.moment.Format(time.RFC3339)
}

// durationUnits in the order of ParseDuration's grammar. A day is 24 hours.
var durationUnits = [...]struct {
	suffix byte
	unit   time.Duration
}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}

// ParseDuration reads whole weeks, days, hours, minutes and seconds, largest
// first, such as "90d" or "1h30m". "0" is zero; there are no negative ones.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration like 90d, 2h or 1h30m", printable(s))
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, bad
	}
	var total time.Duration
	rest, next := s, 0
	for rest != "" {
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 1 || digits > 6 {
			return 0, bad
		}
		count, err := strconv.Atoi(rest[:digits])
		if err != nil {
			return 0, bad
		}
		for next < len(durationUnits) && durationUnits[next].suffix != rest[digits] {
			next++
		}
		if next == len(durationUnits) {
			return 0, bad
		}
		// Six digits of weeks is more than 292 years, which is all a Duration holds.
		if count > int((1<<63-1-total)/durationUnits[next].unit) {
			return 0, bad
		}
		total += time.Duration(count) * durationUnits[next].unit
		rest = rest[digits+1:]
		next++
	}
	return total, nil
}
