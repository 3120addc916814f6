package agentapi

import (
	"fmt"
	"runtime/debug"
)

// aside runs f in a goroutine of its own and waits for it. A goroutine that went
// deep once, into the database and back, keeps the stack that it took: left to the
// goroutines that wait in ten thousand idle sessions, those stacks were most of
// this process's memory. A panic comes out here, with the stack that it had there.
func aside(f func() error) error {
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		err = f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}
