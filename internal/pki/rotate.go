package pki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// Step is how far the rotation of a root's key has come. Each waits for evidence
// that the one before has arrived everywhere.
type Step string

// The steps, in their order.
const (
	// StepTrust: the new root is in every bundle; the proxies that trust the
	// authority are to have it.
	StepTrust Step = "trust"
	// StepIssue: the new root issues; the authorities below get certificates of it.
	StepIssue Step = "issue"
	// StepRenew: ACM's certificates below are renewed.
	StepRenew Step = "renew"
	// StepServe: the proxies that present those are to have them. Behind it the old
	// root is taken out, which cannot be undone.
	StepServe Step = "serve"
	// StepWithdraw: the old root is out of every bundle; the proxies are to know.
	StepWithdraw Step = "withdraw"
	StepDone     Step = "done"
)

// rotation is the rotation of a root's key, or the last one that it had.
type rotation struct {
	Step   Step `json:"step"`
	Target int  `json:"target"` // generation that is to issue in the end
	Other  int  `json:"other"`  // the one that is to go
	Undone bool `json:"undone,omitzero"`
	Paused bool `json:"paused,omitzero"`
	// Forced is the step that does not wait: an operator has said so.
	Forced  Step      `json:"forced,omitzero"`
	Started time.Time `json:"started"`
	Changed time.Time `json:"changed"` // when the step began
	Actor   string    `json:"actor"`
}

const kindRotation = "rotation"

// rotationPlace is where the rotation of the authority of a place lies.
func rotationPlace(at store.Place) store.Place { return store.Place{kindRotation, at[1], at[2]} }

// Rotator replaces the keys of root authorities while they are in use. What it does
// next is decided by the record in the store and by evidence, so that any server
// goes on where another one has ended.
type Rotator struct {
	PCA *PrivateCA
	ACM *ACM
	// Graph builds the Graph of a mesh, which says who trusts and presents what.
	Graph   func(*mesh.View) *mesh.Graph
	Metrics *RotationMetrics // nil: nothing is counted
	Log     *slog.Logger

	mu    sync.Mutex
	known map[mesh.Name]*graphed
	said  map[string]string // what was logged last, by ARN
}

// RotationInput names an authority.
type RotationInput struct {
	AuthorityArn string `json:"authorityArn" required:"true" min:"1" max:"300"`
}

// RotationList is the rotations of the caller's account.
type RotationList struct {
	Rotations []RotationStatus `json:"rotations"`
}

// RotationStatus is a rotation, and what it waits for.
type RotationStatus struct {
	AuthorityArn string    `json:"authorityArn"`
	Step         Step      `json:"step"`
	Undone       bool      `json:"undone,omitzero"` // it goes back, or has gone back
	Paused       bool      `json:"paused,omitzero"`
	Forced       bool      `json:"forced,omitzero"` // this step waits for nothing
	Started      time.Time `json:"started"`
	Changed      time.Time `json:"changed"`
	Waits
}

// MountOperator routes what operators do with rotations.
func (r *Rotator) MountOperator(mux *awsapi.Mux) {
	mux.HandleOperator(http.MethodGet, "/fairlead/v1/rotations", "ListRotations", r.list)
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/rotations", "StartRotation", named(r.start))
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/rotations/pause", "PauseRotation", named(r.pause))
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/rotations/resume", "ResumeRotation", named(r.resume))
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/rotations/undo", "UndoRotation", named(r.undo))
	mux.HandleOperator(http.MethodPost, "/fairlead/v1/rotations/force", "ForceRotation", named(r.force))
}

// named reads which authority something is to be done with.
func named(do func(ctx context.Context, arn string) (*RotationStatus, error)) func(context.Context, *awsapi.Request) (any, error) {
	return func(ctx context.Context, q *awsapi.Request) (any, error) {
		var in RotationInput
		if err := q.Decode(&in); err != nil {
			return nil, err
		}
		return do(ctx, in.AuthorityArn)
	}
}

// pause has a rotation do nothing more until it is resumed.
func (r *Rotator) pause(ctx context.Context, arn string) (*RotationStatus, error) {
	return r.change(ctx, "PauseRotation", arn, func(_ *store.Tx, _ *authority, o *rotation) error {
		o.Paused = true
		return nil
	})
}

func (r *Rotator) resume(ctx context.Context, arn string) (*RotationStatus, error) {
	return r.change(ctx, "ResumeRotation", arn, func(_ *store.Tx, _ *authority, o *rotation) error {
		o.Paused = false
		return nil
	})
}

// force has this step of a rotation wait for nothing.
func (r *Rotator) force(ctx context.Context, arn string) (*RotationStatus, error) {
	return r.change(ctx, "ForceRotation", arn, func(_ *store.Tx, _ *authority, o *rotation) error {
		o.Forced, o.Paused = o.Step, false
		return nil
	})
}

// start makes the next root and puts it into every bundle.
func (r *Rotator) start(ctx context.Context, arn string) (*RotationStatus, error) {
	at, err := r.PCA.parseARN(ctx, "StartRotation", arn)
	if err != nil {
		return nil, err
	}
	now := r.PCA.Now().UTC()
	var a *authority
	if err := r.PCA.read(ctx, func(tx *store.Tx) error {
		o, err := r.PCA.get(tx, at)
		if err != nil {
			return err
		}
		a = o.Value
		return r.mayStart(tx, at, a, now)
	}); err != nil {
		return nil, err
	}
	// Outside of the transaction: an RSA key takes its time.
	g, secret, err := r.prepare(a, now)
	if err != nil {
		return nil, failure(err)
	}
	err = r.PCA.write(ctx, func(tx *store.Tx) error {
		o, err := r.PCA.get(tx, at)
		if err != nil {
			return err
		}
		a := o.Value
		if err := r.mayStart(tx, at, a, now); err != nil {
			return err
		}
		for _, old := range a.Others {
			if now.After(old.NotAfter) {
				if err := dropGeneration(tx, a, old.Number); err != nil {
					return err
				}
			}
		}
		if len(a.Others) >= maxGenerations {
			return acmpca.NewLimitExceededException("The certificate authority %s has %d earlier roots that have not expired, the most that it may have", r.PCA.arn(at[1], at[2]), maxGenerations)
		}
		target := a.nextNumber()
		if err := errors.Join(r.PCA.addGeneration(tx, a, g.generation, secret), g.enter(tx, a, target)); err != nil {
			return err
		}
		return r.put(tx, at, a, &rotation{Step: StepTrust, Target: target, Other: a.Generation, Started: now, Changed: now, Actor: awsapi.PrincipalFrom(ctx).ARN()})
	})
	if err != nil {
		return nil, err
	}
	r.Log.InfoContext(ctx, "the rotation of a root has begun", "authority", arn, "actor", awsapi.PrincipalFrom(ctx).ARN())
	return r.statusOf(ctx, at)
}

// mayStart refuses what cannot be rotated now.
func (r *Rotator) mayStart(tx *store.Tx, at store.Place, a *authority, now time.Time) error {
	if err := r.PCA.mayRotate(a, now); err != nil {
		return err
	}
	o, err := store.GetObject[rotation](tx, rotationPlace(at))
	if err == nil && o.Value.Step != StepDone {
		return acmpca.NewInvalidStateException("%s is being rotated already, at the step %s: see it with --status, or go on with --resume", r.PCA.arn(at[1], at[2]), o.Value.Step)
	}
	return ignoreNotFound(err)
}

// change changes a rotation that is under way.
func (r *Rotator) change(ctx context.Context, action, arn string, fn func(*store.Tx, *authority, *rotation) error) (*RotationStatus, error) {
	at, err := r.PCA.parseARN(ctx, action, arn)
	if err != nil {
		return nil, err
	}
	err = r.PCA.write(ctx, func(tx *store.Tx) error {
		a, err := r.PCA.get(tx, at)
		if err != nil {
			return err
		}
		o, err := store.GetObject[rotation](tx, rotationPlace(at))
		if isNotFound(err) || err == nil && o.Value.Step == StepDone {
			return acmpca.NewInvalidStateException("%s is not being rotated: begin with fairlead ca rotate", arn)
		}
		if err != nil {
			return err
		}
		if err := fn(tx, a.Value, o.Value); err != nil {
			return err
		}
		return store.PutObject(tx, rotationPlace(at), o.Value)
	})
	if err != nil {
		return nil, err
	}
	r.Log.InfoContext(ctx, "a rotation was changed", "authority", arn, "action", action, "actor", awsapi.PrincipalFrom(ctx).ARN())
	return r.statusOf(ctx, at)
}

// undo turns a rotation round: the old root issues again, and the new one goes. While
// nothing has been issued by the new one, it goes at once.
func (r *Rotator) undo(ctx context.Context, arn string) (*RotationStatus, error) {
	return r.change(ctx, "UndoRotation", arn, r.turn)
}

func (r *Rotator) turn(tx *store.Tx, a *authority, o *rotation) error {
	arn := r.PCA.arn(a.Account, a.ID)
	switch {
	case o.Undone:
		return acmpca.NewInvalidStateException("The rotation of %s is being undone already: when it has ended, begin another one", arn)
	case o.Step == StepWithdraw: // the old root is out
		return acmpca.NewInvalidStateException("The rotation of %s cannot be undone: the old root is out of the trust bundles, and proxies refuse what chains to it. Begin another rotation for another root", arn)
	}
	now := r.PCA.Now().UTC()
	before := o.Step
	o.Target, o.Other, o.Undone = o.Other, o.Target, true
	o.Paused, o.Forced, o.Step, o.Changed = false, "", StepIssue, now
	at := placeOf(a.Account, a.ID)
	if before == StepTrust {
		if err := dropGeneration(tx, a, o.Other); err != nil {
			return err
		}
		return r.withdraw(tx, at, a, o)
	}
	if err := a.issueWith(tx, o.Target); err != nil {
		return err
	}
	return r.put(tx, at, a, o)
}

// put writes a rotation with its authority as it is now, whose revision is from now on
// waited for.
func (r *Rotator) put(tx *store.Tx, at store.Place, a *authority, o *rotation) error {
	if _, err := store.GetObject[rotation](tx, rotationPlace(at)); err != nil && !isNotFound(err) {
		return err
	}
	key, err := a.key(tx, a.Generation)
	if err != nil {
		return err
	}
	by, err := a.join(key)
	if err != nil {
		return err
	}
	arn := r.PCA.arn(at[1], at[2])
	if o.Step == StepDone {
		tx.StopAwaiting(arn)
	} else {
		tx.Await(arn)
	}
	return errors.Join(r.PCA.list(tx, a, by, listChange{}), r.PCA.put(tx, at, a), store.PutObject(tx, rotationPlace(at), o))
}

// list shows all rotations of the account.
func (r *Rotator) list(ctx context.Context, q *awsapi.Request) (any, error) {
	out := RotationList{Rotations: []RotationStatus{}}
	err := each(ctx, r.PCA.Store, store.Place{kindRotation, q.Principal.Account}, func(o *store.Object[rotation]) error {
		status, err := r.statusOf(ctx, placeOf(o.Place[1], o.Place[2]))
		if err == nil {
			out.Rotations = append(out.Rotations, *status)
		}
		return ignoreNotFound(err)
	})
	return out, failure(err)
}

// statusOf is a rotation as it is shown.
func (r *Rotator) statusOf(ctx context.Context, at store.Place) (*RotationStatus, error) {
	look, err := r.look(ctx, at)
	if err != nil {
		return nil, failure(err)
	}
	o := look.rotation
	status := &RotationStatus{
		AuthorityArn: r.PCA.arn(at[1], at[2]), Step: o.Step, Undone: o.Undone, Paused: o.Paused, Forced: o.Forced == o.Step && o.Step != StepDone,
		Started: o.Started, Changed: o.Changed,
	}
	if o.Step != StepDone {
		if status.Waits, err = r.waits(ctx, look); err != nil {
			return nil, failure(err)
		}
		status.shorten(maxShown)
	}
	return status, nil
}

// prepared is the next root with its entry in the ledger.
type prepared struct {
	generation
	serial ca.Serial
	entry  issued
}

func (r *Rotator) prepare(a *authority, now time.Time) (prepared, []byte, error) {
	template, err := ca.ParseTemplateARN(awsapi.Partition(r.PCA.Region), "arn:"+awsapi.Partition(r.PCA.Region)+":acm-pca:::template/RootCACertificate/V1")
	if err != nil {
		return prepared{}, nil, err
	}
	serial, err := drawSerial()
	if err != nil {
		return prepared{}, nil, err
	}
	g, secret, err := a.prepare(ca.Request{Template: template, Serial: serial}, now)
	if err != nil {
		return prepared{}, nil, fmt.Errorf("make the next root of %s: %w", r.PCA.arn(a.Account, a.ID), err)
	}
	p := prepared{generation: g, serial: serial, entry: issued{Template: template.ARN(awsapi.Partition(r.PCA.Region)), Requester: rotationPrincipal, IssuedAt: now, Root: true}}
	return p, secret, p.entry.describe(g.Certificate)
}

// enter stages the root's own certificate in its ledger.
func (p prepared) enter(tx *store.Tx, a *authority, number int) error {
	entry := p.entry
	entry.Generation = number
	return store.MakeObject(tx, certificatePlace(a.ID, p.serial.String()), &entry)
}
