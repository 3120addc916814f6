// Command fakehistory fills the journal of an agent that does not run:
//
//	fakehistory STATE COUNT FROM UNTIL
//
// with times as in RFC 3339.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit/audittest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fakehistory:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("say STATE COUNT FROM UNTIL")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var at [2]time.Time
	for i, text := range args[2:] {
		if at[i], err = time.Parse(time.RFC3339Nano, text); err != nil {
			return err
		}
	}
	return audittest.FakeHistory(context.Background(), args[0], count, at[0], at[1])
}
