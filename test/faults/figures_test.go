package faults_test

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// figures are what the crash stories measured, of all their estates.
type figures struct {
	mu    sync.Mutex
	began time.Time
	// kills, spared and recovered are by what was killed; spared are rounds whose
	// plan ended before the point came.
	kills, spared, midway map[string]int
	recovered, quiet      map[string][]time.Duration
	// points are the different calls at which something died, by what was killed.
	points, sites map[string]map[string]bool
	possible      map[string]int
	// calls are kills by the call.
	calls           map[string]int
	changes, plans  int
	records, audits int
	estates         int
}

func newFigures() *figures {
	return &figures{
		began: time.Now(), kills: map[string]int{}, spared: map[string]int{}, midway: map[string]int{},
		recovered: map[string][]time.Duration{}, quiet: map[string][]time.Duration{},
		points: map[string]map[string]bool{}, sites: map[string]map[string]bool{}, possible: map[string]int{}, calls: map[string]int{},
	}
}

func (f *figures) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// total is how many kills there were.
func (f *figures) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.kills {
		n += k
	}
	return n
}

// at notes a kill at a point.
func (f *figures) at(victim string, p point, c call) {
	f.with(func() {
		f.kills[victim]++
		f.calls[c.name]++
		for _, of := range []struct {
			in   map[string]map[string]bool
			what string
		}{{f.points, p.String()}, {f.sites, c.name + " on " + c.on}} {
			if of.in[victim] == nil {
				of.in[victim] = map[string]bool{}
			}
			of.in[victim][of.what] = true
		}
	})
}

func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// markdown is the figures as they stand in RESULTS.md.
func (f *figures) markdown() string {
	total := f.total()
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d kills in %s on %d cores, over %d estates, %d plans with %d changes. The log was exported and verified %d times; the last exports held %d records.\n\n",
		total, time.Since(f.began).Round(time.Second), runtime.NumCPU(), f.estates, f.plans, f.changes, f.audits, f.records)
	b.WriteString("| killed | kills | plan still open | plan ended first | different points (of) | different sites | recovery, median | worst | undisturbed, median | ratio median | ratio worst |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, v := range slices.Sorted(maps.Keys(f.kills)) {
		r, q := f.recovered[v], median(f.quiet[quietOf(v)])
		worst := time.Duration(0)
		if len(r) > 0 {
			worst = slices.Max(r)
		}
		ratio := func(d time.Duration) string {
			if q == 0 || d == 0 {
				return "–"
			}
			return fmt.Sprintf("%.1f", float64(d)/float64(q))
		}
		points := "–"
		if f.possible[v] > 0 {
			points = fmt.Sprintf("%d (%d)", len(f.points[v]), f.possible[v])
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %s | %d | %v | %v | %v | %s | %s |\n", v, f.kills[v], f.midway[v], f.spared[v], points, len(f.sites[v]),
			median(r).Round(time.Millisecond), worst.Round(time.Millisecond), q.Round(time.Millisecond), ratio(median(r)), ratio(worst))
	}
	b.WriteString("\nKills by system call:")
	for i, name := range slices.SortedFunc(maps.Keys(f.calls), func(a, b string) int { return f.calls[b] - f.calls[a] }) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s %d", name, f.calls[name])
	}
	b.WriteString(".\n")
	return b.String()
}

// save writes the figures to a file, when one was asked for.
func (f *figures) save(path string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(f.markdown()), 0o644)
}
