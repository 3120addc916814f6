package auditlog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Export writes the tenant's whole log as it stands: auditv1.ExportFrame
// messages, each after its length as an unsigned varint, in the order that
// message states, under one fresh checkpoint with its cosignatures. It reads one snapshot, so appends
// go on meanwhile and are not in it. ErrNotFound for an empty log.
func (l *Log) Export(ctx context.Context, tenant string, w io.Writer) error {
	roots, err := l.roots.Envelopes()
	if err != nil {
		return fmt.Errorf("read root documents: %w", err)
	}
	if _, err := l.Checkpoint(ctx, tenant); err != nil {
		return fmt.Errorf("checkpoint for the export of %s: %w", tenant, err)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	frame := func(f *auditv1.ExportFrame) error {
		_, err := protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}.MarshalTo(out, f)
		return err
	}
	err = frame(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Head{Head: &auditv1.ExportHead{
		Format: format, TrustDomain: l.domain, Tenant: tenant, Origin: l.Origin(tenant), RootDocuments: roots, At: timestamppb.New(l.now()),
	}}})
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	err = l.db.View(ctx, func(t tx.Tx) error {
		sealed, err := l.Sealed(t, tenant)
		if err != nil {
			return err
		}
		if err := l.exportEntries(t, tenant, sealed.Size, frame); err != nil {
			return err
		}
		if err := l.exportBatches(t, tenant, sealed.Size, frame); err != nil {
			return err
		}
		note, err := l.cosigned(t, tenant, sealed)
		if err != nil {
			return err
		}
		return frame(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_End{End: &auditv1.ExportEnd{Checkpoint: note, Entries: sealed.Size}}})
	})
	if err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write export: %w", err)
	}
	return nil
}

// maxCosignatures bounds the signature lines beside the log's own.
const maxCosignatures = 32

// cosigned is the checkpoint with the witnesses' signatures over exactly it.
func (l *Log) cosigned(t tx.Tx, tenant string, c Checkpoint) (string, error) {
	list, err := l.store.Cosignatures(t, tenant)
	if err != nil {
		return "", err
	}
	note, n := c.Note, 0
	for _, w := range list {
		if w.Size == c.Size && w.Line != "" && n < maxCosignatures {
			note += strings.TrimSuffix(w.Line, "\n") + "\n"
			n++
		}
	}
	return note, nil
}

func (l *Log) exportEntries(t tx.Tx, tenant string, size uint64, frame func(*auditv1.ExportFrame) error) error {
	var bodies map[uint64]SaltedBody
	return l.each(t, tenant, 0, size, func(index uint64, leaf Leaf) (err error) {
		if index%page == 0 {
			if bodies, err = l.store.Bodies(t, tenant, index, index+page); err != nil {
				return err
			}
		}
		b := bodies[index]
		return frame(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Entry{Entry: &auditv1.ExportEntry{Entry: leaf, Salt: b.Salt, Body: b.Body}}})
	})
}

func (l *Log) exportBatches(t tx.Tx, tenant string, size uint64, frame func(*auditv1.ExportFrame) error) error {
	for next := uint64(0); next < size; {
		batches, err := l.store.Batches(t, tenant, next, 16)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return nil
		}
		for _, stored := range batches {
			if stored.First >= size {
				return nil
			}
			var b auditv1.Batch
			if err := proto.Unmarshal(stored.Batch, &b); err != nil {
				return fmt.Errorf("%w: batch at entry %d of %s: %w", ErrCorrupt, stored.First, tenant, err)
			}
			if err := frame(&auditv1.ExportFrame{Frame: &auditv1.ExportFrame_Batch{Batch: &b}}); err != nil {
				return err
			}
			next = stored.First + stored.Count
		}
	}
	return nil
}
