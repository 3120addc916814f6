package tx

import (
	"time"
)

// Scanner is one row, of a query for one or of many.
type Scanner interface{ Scan(dest ...any) error }

// Collect runs a query and scans every row.
func Collect[T any](t Tx, scan func(Scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := t.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// FormatTime is how moments are kept: RFC 3339 in UTC with nanoseconds always
// written, so that text order is time order; the zero time is empty.
func FormatTime(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// ParseTime reads what FormatTime wrote.
func ParseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, s)
}
