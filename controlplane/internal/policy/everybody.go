package policy

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Asked is a subject with its grants.
type Asked struct {
	Subject Subject
	Grants  []Grant
}

// Answer is what Desired says of one subject: Err is as Desired returns it.
type Answer struct {
	Desired Desired
	Err     error
}

// Everybody is Desired of each, in their order and with the same costs. It works
// on all processors, and does not evaluate a role's condition again for people
// who are alike in all that it reads.
func (p *Program) Everybody(asked []Asked, asOf time.Time) []Answer {
	const portion = 256
	answers := make([]Answer, len(asked))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(asked)/portion+1) {
		workers.Go(func() {
			known := p.newVerdicts()
			for {
				from := int(next.Add(portion)) - portion
				if from >= len(asked) {
					return
				}
				for i := from; i < min(from+portion, len(asked)); i++ {
					a := asked[i]
					answers[i].Desired, answers[i].Err = p.judge(a.Subject, a.Grants, asOf, known)
				}
			}
		})
	}
	workers.Wait()
	return answers
}
