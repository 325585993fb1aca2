/**
 * Convert a picture to the 28 by 28 pixels of the model's input.
 *
 * This reimplements `read_digit` of nbs/model/07_reading.ipynb, step by step and with the same names;
 * that notebook explains each step. tests/test_draw_page.py compares the two, so change both together.
 * The arithmetic of Pillow and SciPy is reproduced, including its rounding.
 *
 * A plane is {width, height, values}: one number per pixel, row by row. Grey and ink are 0 to 1.
 */

const LONGEST_SIDE = 512; // pixels; larger pictures are reduced
const FINE = 5; // pixels to one of MNIST's while the digit is redrawn

/** Return the digit in a picture in MNIST's form: 784 bytes, white on black; null if there is none. */
export function readDigit(picture /* ImageData: {width, height, data}, data RGBA */) {
  const ink = findInk(toGrey(picture));
  const smooth = gaussian(ink, Math.max(ink.width, ink.height) / 200); // without noise
  if (range(smooth.values)[1] < 0.05) return null;
  const page = isLikeMnist(ink) ? ink : centre(redraw(cutOut(ink, smooth)));
  return Uint8Array.from(map(page, (value) => roundHalfEven(255 * value)).values);
}

// Grey and ink

function toGrey({ width, height, data }) {
  const channel = (offset) => {
    const values = new Uint8ClampedArray(width * height);
    for (let i = 0; i < values.length; i++) values[i] = data[4 * i + offset];
    return { width, height, values };
  };
  let [red, green, blue, alpha] = [0, 1, 2, 3].map(channel);
  if (alpha.values.every((value) => value === 255)) {
    return divided(thumbnail(luma(red, green, blue)), 255);
  }
  if (Math.max(width, height) > LONGEST_SIDE) {
    // Colours are weighed by their opacity, so that what cannot be seen does not bleed in.
    const weighed = [red, green, blue].map((plane) => thumbnail(premultiplied(plane, alpha)));
    alpha = thumbnail(alpha);
    [red, green, blue] = weighed.map((plane) => unmultiplied(plane, alpha));
  }
  const grey = divided(luma(red, green, blue), 255);
  const opacity = divided(alpha, 255);
  // A drawing on a transparent ground: dark ink stands on white, light ink on black.
  const visible = map(grey, (value, i) => value * opacity.values[i]);
  const drawn = sum(visible.values) / Math.max(sum(opacity.values), 1e-9);
  return map(visible, (value, i) => value + (drawn < 0.5 ? 1 - opacity.values[i] : 0));
}

function luma(red, green, blue) {
  const weighted = (i) =>
    19595 * red.values[i] + 38470 * green.values[i] + 7471 * blue.values[i] + 32768;
  return { ...red, values: red.values.map((_, i) => weighted(i) >> 16) };
}

function premultiplied(plane, alpha) {
  const product = (value, i) => {
    const rounded = value * alpha.values[i] + 128;
    return (rounded + (rounded >> 8)) >> 8;
  };
  return { ...plane, values: plane.values.map(product) };
}

function unmultiplied(plane, alpha) {
  const quotient = (value, i) =>
    alpha.values[i] ? Math.trunc((255 * value) / alpha.values[i]) : value;
  return { ...plane, values: plane.values.map(quotient) };
}

function findInk(grey) {
  const ground = background(grey);
  const lighter = grey.values.map((value, i) => value - ground[i]);
  const [least, most] = range(lighter);
  const sign = most < -least ? -1 : 1; // dark on light, or light on dark
  return { ...grey, values: lighter.map((value) => clip(sign * value, 0, 1)) };
}

/** The brightness behind the digit: that of the border, or a plane fitted to it if light falls off. */
function background({ width, height, values }) {
  const border = [];
  for (let row = 0; row < height; row++) {
    const edge = row === 0 || row === height - 1;
    for (let column = 0; column < width; column += edge ? 1 : Math.max(1, width - 1)) {
      border.push([1, row / height - 0.5, column / width - 0.5, values[row * width + column]]);
    }
  }
  const flat = median(border.map((point) => point[3]));
  const missedFlat = sum(border.map((point) => Math.abs(point[3] - flat)));
  if (missedFlat === 0) return new Float64Array(width * height).fill(flat); // no plane does better
  const weights = new Float64Array(border.length).fill(1);
  let plane;
  let missed;
  for (let round = 0; round < 20; round++) {
    plane = fitPlane(border, weights);
    missed = 0;
    border.forEach(([one, row, column, value], i) => {
      const miss = Math.abs(value - (plane[0] * one + plane[1] * row + plane[2] * column));
      missed += miss;
      weights[i] = 1 / Math.max(miss, 1e-3); // of the squares: in effect, the misses are summed
    });
  }
  if (!(missed < 0.5 * missedFlat)) return new Float64Array(width * height).fill(flat);
  return values.map((_, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return plane[0] + plane[1] * (row / height - 0.5) + plane[2] * (column / width - 0.5);
  });
}

/** Weighted least squares by the normal equations; a direction that the points do not span stays 0. */
function fitPlane(points, weights) {
  const rows = [0, 1, 2].map(() => [0, 0, 0, 0]);
  points.forEach((point, i) => {
    for (let a = 0; a < 3; a++) {
      for (let b = 0; b < 4; b++) rows[a][b] += weights[i] * point[a] * point[b];
    }
  });
  const scale = rows[0][0];
  for (let a = 0; a < 3; a++) {
    if (rows[a][a] < 1e-12 * scale) {
      rows[a].fill(0);
      continue;
    }
    for (let b = 0; b < 3; b++) {
      if (b === a) continue;
      const factor = rows[b][a] / rows[a][a];
      for (let c = 0; c < 4; c++) rows[b][c] -= factor * rows[a][c];
    }
  }
  return rows.map((row, a) => (row[a] ? row[3] / row[a] : 0));
}

// The digit: found, cut out, redrawn at MNIST's size, put where MNIST puts it

function isLikeMnist(ink) {
  if (ink.width !== 28 || ink.height !== 28) return false;
  const box = extent(ink, (value) => value > 0.1);
  const longer = Math.max(box.bottom - box.top, box.right - box.left);
  const middles = centreOfMass(ink).map((middle) => middle - 0.5);
  return longer >= 17 && longer <= 21 && middles.every((middle) => Math.abs(middle - 14) < 1);
}

/** The digit with a margin: its large marks and what is near them, without specks further off. */
function cutOut(ink, smooth) {
  const threshold = 0.3 * range(smooth.values)[1];
  const { marks, amounts } = label(smooth, threshold);
  const least = Math.max(...amounts) / 25;
  const digit = { ...ink, values: marks.map((mark) => (mark && amounts[mark] >= least ? 1 : 0)) };
  const box = extent(digit, (value) => value > 0);
  const margin = Math.max(
    1,
    roundHalfEven(0.1 * Math.max(box.bottom - box.top, box.right - box.left)),
  );
  const near = widened(digit, margin);
  return crop(
    map(ink, (value, i) => value * near.values[i]),
    {
      top: box.top - margin,
      bottom: box.bottom + margin,
      left: box.left - margin,
      right: box.right + margin,
    },
  );
}

/** Number the connected marks above a threshold from 1, diagonals included, and sum each one's ink. */
function label({ width, height, values }, threshold) {
  const marks = new Int32Array(values.length);
  const amounts = [0];
  for (let start = 0; start < values.length; start++) {
    if (marks[start] || !(values[start] > threshold)) continue;
    const mark = amounts.push(0) - 1;
    const open = [start];
    marks[start] = mark;
    while (open.length) {
      const here = open.pop();
      amounts[mark] += values[here];
      const [row, column] = [Math.floor(here / width), here % width];
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          const there = y * width + x;
          if (marks[there] || !(values[there] > threshold)) continue;
          marks[there] = mark;
          open.push(there);
        }
      }
    }
  }
  return { marks, amounts };
}

/** Strokes as thick as MNIST's, whatever the pen was; the longer side becomes 20 pixels. */
function redraw(digit) {
  const blurred = gaussian(resized(digit, 24 * FINE), 0.45 * FINE);
  const fine = divided(blurred, range(blurred.values)[1]);
  const around = gaussian(fine, 2.0 * FINE);
  const drawn = map(fine, (value, i) =>
    clip(0.5 + 3 * (value - (0.18 + 0.7 * around.values[i])), 0, 1),
  );
  const box = extent(drawn, (value) => value > 0.5);
  return map(resized(crop(drawn, box), 20), (value) => clip(value, 0, 1));
}

/** On a page of 28 by 28, by its centre of mass. */
function centre(digit) {
  const [middleRow, middleColumn] = centreOfMass(digit);
  const top = clip(roundHalfEven(14.5 - middleRow), 0, 28 - digit.height);
  const left = clip(roundHalfEven(14.5 - middleColumn), 0, 28 - digit.width);
  return crop(digit, { top: -top, left: -left, bottom: 28 - top, right: 28 - left });
}

function centreOfMass({ width, height, values }) {
  const rows = new Float64Array(height);
  const columns = new Float64Array(width);
  values.forEach((value, i) => {
    rows[Math.floor(i / width)] += value;
    columns[i % width] += value;
  });
  return [rows, columns].map(
    (axis) => sum(axis.map((value, i) => value * (i + 0.5))) / sum(axis),
  );
}

// Pillow: thumbnail and resize

/** `Image.thumbnail` of one channel of bytes: first whole pixels are averaged, then a box resamples. */
function thumbnail(plane) {
  const { width, height } = plane;
  if (width <= LONGEST_SIDE && height <= LONGEST_SIDE) return plane;
  const [newWidth, newHeight] = thumbnailSize(width, height);
  const factor = (side, size) => Math.max(1, Math.trunc(side / size / 2));
  const [factorX, factorY] = [factor(width, newWidth), factor(height, newHeight)];
  const reduced = factorX > 1 || factorY > 1 ? reduce(plane, factorX, factorY) : plane;
  return resample(reduced, newWidth, newHeight, BOX, width / factorX, height / factorY);
}

function thumbnailSize(width, height) {
  const aspect = width / height;
  const nearest = (number, miss) => {
    const [low, high] = [Math.floor(number), Math.ceil(number)];
    return Math.max(1, miss(low) <= miss(high) ? low : high);
  };
  if (aspect <= 1) {
    const miss = (size) => Math.abs(aspect - size / LONGEST_SIDE);
    return [nearest(LONGEST_SIDE * aspect, miss), LONGEST_SIDE];
  }
  const miss = (size) => (size ? Math.abs(aspect - LONGEST_SIDE / size) : 0);
  return [LONGEST_SIDE, nearest(LONGEST_SIDE / aspect, miss)];
}

/** `Image.reduce`: the mean of each block, where the last blocks may be smaller. */
function reduce({ width, height, values }, factorX, factorY) {
  const [newWidth, newHeight] = [Math.ceil(width / factorX), Math.ceil(height / factorY)];
  const reduced = new Uint8ClampedArray(newWidth * newHeight);
  for (let row = 0; row < newHeight; row++) {
    const bottom = Math.min(height, (row + 1) * factorY);
    for (let column = 0; column < newWidth; column++) {
      const right = Math.min(width, (column + 1) * factorX);
      const count = (bottom - row * factorY) * (right - column * factorX);
      let total = Math.floor(count / 2);
      for (let y = row * factorY; y < bottom; y++) {
        for (let x = column * factorX; x < right; x++) total += values[y * width + x];
      }
      // Pillow multiplies by a whole number instead of dividing.
      reduced[row * newWidth + column] = Math.floor(
        (total * Math.floor(2 ** 24 / count)) / 2 ** 24,
      );
    }
  }
  return { width: newWidth, height: newHeight, values: reduced };
}

const BOX = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const BICUBIC = {
  support: 2,
  weight(x) {
    const d = Math.abs(x);
    if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
    return d < 2 ? -0.5 * (((d - 5) * d + 8) * d - 4) : 0;
  },
};

/** Scaled so that the longer side has a given length, in single precision as Pillow's mode F. */
function resized(plane, longer) {
  const scale = longer / Math.max(plane.width, plane.height);
  const [width, height] = [plane.width, plane.height].map((side) =>
    Math.max(1, roundHalfEven(side * scale)),
  );
  const single = { ...plane, values: Float32Array.from(plane.values) };
  return asDoubles(resample(single, width, height, scale > 1 ? BICUBIC : BOX));
}

/** `Image.resize` of the part from 0 to `spanX` and `spanY`, columns first, then rows. */
function resample(plane, width, height, filter, spanX = plane.width, spanY = plane.height) {
  // Pillow 13 begins with the rows where a picture is tall, which moves some bytes by one.
  const across = resampleAxis(plane, "x", width, spanX, filter);
  return resampleAxis(across, "y", height, spanY, filter);
}

function resampleAxis(plane, axis, size, span, filter) {
  const along = axis === "x";
  const length = along ? plane.width : plane.height;
  if (length === size && span === length) return plane;
  const lines = along ? plane.height : plane.width;
  const [step, lineStep] = along ? [1, plane.width] : [plane.width, 1];
  const [newStep, newLineStep] = along ? [1, size] : [plane.width, 1];
  const bytes = plane.values instanceof Uint8ClampedArray;
  const values = new plane.values.constructor(size * lines);
  for (let place = 0; place < size; place++) {
    const { first, weights } = filterWeights(length, size, span, place, filter, bytes);
    for (let line = 0; line < lines; line++) {
      let total = bytes ? 0.5 : 0; // bytes are rounded
      const start = line * lineStep + first * step;
      for (let i = 0; i < weights.length; i++) total += weights[i] * plane.values[start + i * step];
      values[line * newLineStep + place * newStep] = bytes ? Math.floor(total) : total;
    }
  }
  return along ? { ...plane, width: size, values } : { ...plane, height: size, values };
}

function filterWeights(length, size, span, place, filter, bytes) {
  const scale = span / size;
  const widening = Math.max(scale, 1);
  const middle = (place + 0.5) * scale;
  const reach = filter.support * widening;
  const first = Math.max(0, Math.trunc(middle - reach + 0.5));
  const end = Math.min(length, Math.trunc(middle + reach + 0.5));
  const weights = Array.from({ length: end - first }, (_, i) =>
    filter.weight((i + first - middle + 0.5) * (1 / widening)),
  );
  const total = sum(weights);
  // For bytes Pillow keeps 22 binary places.
  const kept = (weight) => (bytes ? Math.trunc(0.5 + weight * 2 ** 22) / 2 ** 22 : weight);
  return { first, weights: weights.map((weight) => kept(weight / total)) };
}

// SciPy: gaussian_filter and binary_dilation

function gaussian(plane, sigma) {
  const radius = Math.trunc(4 * sigma + 0.5);
  const distances = Float64Array.from({ length: radius + 1 }, (_, i) => i);
  const bell = distances.map((distance) => Math.exp((-0.5 * distance ** 2) / sigma ** 2));
  const total = 2 * sum(bell) - 1;
  const weights = bell.map((value) => value / total);
  const { width, height } = plane;
  const down = eachLine(plane, height, width, width, 1, (line) => convolved(line, weights));
  return eachLine(down, width, height, 1, width, (line) => convolved(line, weights));
}

/** Symmetric weights, given from the middle on; past its ends the line goes on as its mirror image. */
function convolved(line, weights) {
  const radius = weights.length - 1;
  const { length } = line;
  const mirrored = new Float64Array(length + 2 * radius);
  for (let i = 0; i < mirrored.length; i++) {
    const place = (((i - radius) % (2 * length)) + 2 * length) % (2 * length);
    mirrored[i] = line[Math.min(place, 2 * length - 1 - place)];
  }
  const blurred = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const middle = i + radius;
    let total = mirrored[middle] * weights[0];
    for (let d = radius; d > 0; d--) {
      total += (mirrored[middle - d] + mirrored[middle + d]) * weights[d];
    }
    blurred[i] = total;
  }
  return blurred;
}

/** Everything within so many pixels, diagonals included. */
function widened(mask, pixels) {
  const widenedLine = (line) => {
    const wide = new Float64Array(line.length);
    let end = 0;
    line.forEach((value, i) => {
      if (!value) return;
      wide.fill(1, Math.max(end, i - pixels), i + pixels + 1);
      end = i + pixels + 1;
    });
    return wide;
  };
  const { width, height } = mask;
  const down = eachLine(mask, height, width, width, 1, widenedLine);
  return eachLine(down, width, height, 1, width, widenedLine);
}

function eachLine(plane, length, lines, step, lineStep, change) {
  const values = new Float64Array(plane.values.length);
  const line = new Float64Array(length);
  for (let start = 0; start < lines * lineStep; start += lineStep) {
    for (let i = 0; i < length; i++) line[i] = plane.values[start + i * step];
    if (line.every((value) => value === 0)) continue; // and stays so
    const changed = change(line);
    for (let i = 0; i < length; i++) values[start + i * step] = changed[i];
  }
  return { ...plane, values };
}

// Small tools

function map(plane, change) {
  const values = new Float64Array(plane.values.length);
  for (let i = 0; i < values.length; i++) values[i] = change(plane.values[i], i);
  return { ...plane, values };
}

function divided(plane, divisor) {
  return map(plane, (value) => value / divisor);
}

function asDoubles(plane) {
  return map(plane, (value) => value);
}

/** A part of a plane; outside of the plane it is 0. */
function crop(plane, { top, bottom, left, right }) {
  const [width, height] = [right - left, bottom - top];
  const values = new Float64Array(width * height);
  for (let row = Math.max(0, top); row < Math.min(bottom, plane.height); row++) {
    for (let column = Math.max(0, left); column < Math.min(right, plane.width); column++) {
      values[(row - top) * width + column - left] = plane.values[row * plane.width + column];
    }
  }
  return { width, height, values };
}

/** The rows and columns that hold something: from top and left, up to bottom and right. */
function extent({ width, height, values }, holds) {
  const box = { top: height, bottom: 0, left: width, right: 0 };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (!holds(values[row * width + column])) continue;
      box.top = Math.min(box.top, row);
      box.bottom = row + 1;
      box.left = Math.min(box.left, column);
      box.right = Math.max(box.right, column + 1);
    }
  }
  return box.bottom ? box : { top: 0, bottom: height, left: 0, right: width };
}

function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

function range(values) {
  let [least, most] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < least) least = values[i];
    if (values[i] > most) most = values[i];
  }
  return [least, most];
}

function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** As Python and NumPy round: 0.5 to the even neighbour. */
function roundHalfEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 ? low + 1 : low;
}
